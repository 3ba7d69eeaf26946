// Lets plotly.js style what it draws under the page's policy: that asks for a nonce on each style element, which it makes
// when it is loaded, and forbids style attributes, but not the same said to an element's style.
(function () {
  "use strict";

  const nonce = document.currentScript.dataset.nonce;
  const create = document.createElement.bind(document);
  document.createElement = function (name, options) {
    const element = create(name, options);
    if (String(name).toLowerCase() === "style") {
      element.nonce = nonce;
    }
    return element;
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style") {
      this.style.cssText = value;
    } else {
      set.call(this, name, value);
    }
  };
})();
