// A form marked data-rp-once is sent once: a second click while it is under way does nothing.
"use strict";

(() => {
  // On the document: panels that are re-rendered bring new forms.
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-rp-once]");
    if (!form) return;
    if (form.dataset.rpSent) {
      event.preventDefault();
      return;
    }
    form.dataset.rpSent = "1";
    form.querySelectorAll("button[type=submit]").forEach((button) => {
      button.setAttribute("aria-disabled", "true");
      button.classList.add("rp-sent");
    });
  });

  // The page that comes back with the browser's Back button can be sent again.
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-rp-sent]").forEach((form) => {
      delete form.dataset.rpSent;
      form.querySelectorAll(".rp-sent").forEach((button) => {
        button.removeAttribute("aria-disabled");
        button.classList.remove("rp-sent");
      });
    });
  });
})();
