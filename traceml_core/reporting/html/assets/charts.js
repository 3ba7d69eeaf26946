// Draws the charts of a page in the colours of its theme, and again where the theme or the paper changes.
(function () {
  "use strict";

  const QUIET = { displayModeBar: false, displaylogo: false, responsive: true, showTips: false };
  const NARROW_PX = 640;
  const NARROW_WITH_LEGEND_PX = 500;

  function figures() {
    const element = document.getElementById("figures");
    return element ? JSON.parse(element.textContent) : {};
  }

  // A text that names a variable of the style sheet becomes what that is now.
  function coloured(value, style) {
    if (typeof value === "string") {
      return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) {
      return typeof value[value.length - 1] === "number" ? value : value.map((one) => coloured(one, style));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, style)]));
    }
    return value;
  }

  function layoutOf(own, style) {
    const narrow = window.innerWidth < NARROW_PX;
    const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "--muted" };
    const hover = { bgcolor: "--surface", bordercolor: "--line", font: { color: "--ink", size: 12 } };
    const legend = { orientation: "h", x: 0, y: -0.22, yanchor: "top", font: { color: "--ink", size: 12 } };
    const base = {
      autosize: true, height: narrow ? 320 : 300, margin: { l: 8, r: 12, t: 26, b: 8 }, font, hoverlabel: hover,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: narrow ? false : "zoom",
    };
    const merged = Object.assign(base, own);
    if (narrow && own.legend) {
      merged.height = NARROW_WITH_LEGEND_PX; // its lines stand below each other
    }
    merged.legend = Object.assign(legend, own.legend || {});
    return coloured(merged, style);
  }

  function draw() {
    if (!window.Plotly) {
      return;
    }
    const known = figures();
    const style = getComputedStyle(document.documentElement);
    document.querySelectorAll(".plot").forEach(function (element) {
      const figure = known[element.dataset.figure];
      if (figure) {
        window.Plotly.react(element, coloured(figure.data, style), layoutOf(figure.layout, style), QUIET);
      }
    });
  }

  window.traceml = { draw: draw };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
  matchMedia("(max-width: " + NARROW_PX + "px)").addEventListener("change", draw);
})();
