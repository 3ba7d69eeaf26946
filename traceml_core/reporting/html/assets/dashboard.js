// Follows a run: puts in what has changed on the page and leaves everything else as it is, scroll and open tables included.
(function () {
  "use strict";

  const page = document.getElementById("page");
  const connection = document.getElementById("connection");

  function tell(text) {
    if (connection.textContent !== text) {
      connection.textContent = text;
    }
  }

  function parts(root) {
    return new Map(Array.from(root.querySelectorAll("[data-part]"), (one) => [one.dataset.part, one]));
  }

  function shape(root) {
    return Array.from(root.querySelectorAll("[data-part], [data-figure]"), (one) => one.dataset.part || one.dataset.figure)
      .join(" ");
  }

  function openDetails(root) {
    return Array.from(root.querySelectorAll("details[open][id]"), (one) => one.id);
  }

  function show(text) {
    const fresh = new DOMParser().parseFromString("<div>" + text + "</div>", "text/html").body.firstChild;
    const open = openDetails(page);
    if (shape(fresh) === shape(page)) {
      const before = parts(page);
      parts(fresh).forEach(function (part, key) {
        const old = before.get(key);
        if (old.outerHTML !== part.outerHTML) {
          old.className = part.className;
          old.replaceChildren.apply(old, Array.from(part.childNodes));
        }
      });
      const figures = page.querySelector("#figures");
      if (figures) {
        figures.textContent = fresh.querySelector("#figures").textContent;
      }
    } else {
      page.replaceChildren.apply(page, Array.from(fresh.childNodes));
    }
    open.forEach(function (id) {
      const details = document.getElementById(id);
      if (details) {
        details.open = true;
      }
    });
    if (window.traceml) {
      window.traceml.draw();
    }
  }

  const events = new EventSource(page.dataset.events);
  events.addEventListener("open", function () {
    tell("following");
  });
  events.addEventListener("page", function (event) {
    show(JSON.parse(event.data));
  });
  events.addEventListener("end", function () {
    events.close();
    tell("the dashboard has ended; this is the last it showed");
  });
  events.addEventListener("error", function () {
    tell("no connection; trying again");
  });
})();
