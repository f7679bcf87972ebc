// Shows the memory that a build of the index in the form would take, and follows the form as it is edited.
"use strict";

(() => {
  const PAUSE = 500;
  const ROW = /^(.+)-(\d+)-(name|type|source_path|separator|multiple|DELETE)$/;

  // The inline rows of fields, by the name of any of their inputs.
  function fieldsOf(form) {
    const rows = new Map();
    for (const input of form.elements) {
      const found = ROW.exec(input.name || "");
      if (!found) continue;
      const key = `${found[1]}-${found[2]}`;
      const row = rows.get(key) || {};
      row[found[3]] = input.type === "checkbox" ? input.checked : input.value;
      rows.set(key, row);
    }
    return [...rows.values()]
      .filter((row) => row.name && row.type && !row.DELETE)
      .map((row) => ({
        name: row.name,
        type: row.type,
        source: row.source_path || row.name,
        separator: row.separator || "|",
        multiple: Boolean(row.multiple),
      }));
  }

  function follow(box) {
    const form = box.closest("form") || document.querySelector("#content-main form, form[id$='_form']");
    const answer = document.createElement("div");
    const items = document.createElement("input");
    items.type = "number";
    items.min = "1";
    items.placeholder = "as in the source";
    items.className = "rp-capacity-items";
    items.setAttribute("aria-label", "Number of items");
    box.append(answer, items);
    answer.setAttribute("aria-live", "polite");
    let timer = 0;
    let asked = 0;

    async function refresh() {
      const number = ++asked;
      const body = new URLSearchParams();
      body.set("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
      for (const name of ["endpoint", "source", "algorithm", "m"]) {
        const input = form.elements[name];
        if (input) body.set(name, input.value);
      }
      body.set("fields_of_item", JSON.stringify(fieldsOf(form)));
      if (items.value) body.set("items", items.value);
      try {
        const reply = await fetch(box.dataset.rpCapacity, {
          method: "POST",
          body,
          credentials: "same-origin",
        });
        // A session that ended answers with the login page.
        if (!reply.ok || reply.redirected) throw new Error(`status ${reply.status}`);
        const text = await reply.text();
        // An earlier question may be answered after a later one.
        if (number !== asked) return;
        answer.innerHTML = text;
        box.classList.remove("rp-stale");
      } catch {
        box.classList.add("rp-stale");
      }
    }

    function later() {
      clearTimeout(timer);
      timer = setTimeout(refresh, PAUSE);
    }

    form.addEventListener("input", later);
    form.addEventListener("change", later);
    items.addEventListener("input", later);
    refresh();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-rp-capacity]").forEach(follow);
  });
})();
