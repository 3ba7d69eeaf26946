// Lets plotly.js make its style elements, as it does when it is loaded: the page's policy asks for a nonce on each.
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
})();
