// Keeps the progress of a running build up to date, and stops when the build has ended.
"use strict";

(() => {
  const SECOND = 1000;
  const LONGEST_WAIT = 15 * SECOND;

  const isRunning = (box) => Boolean(box.querySelector("[data-running='1']"));
  const opened = (box) => [...box.querySelectorAll("details[data-rp-keep][open]")].map((d) => d.dataset.rpKeep);

  // Screen readers hear of a new status, not of each figure.
  function announce(box) {
    const status = box.previousElementSibling;
    const says = [...box.querySelectorAll("[data-rp-says]")].map((head) => head.dataset.rpSays).join(". ");
    if (status?.getAttribute("role") === "status" && status.textContent !== says) status.textContent = says;
  }

  // What the reader opened stays open, and what has the focus keeps it.
  function replace(box, html) {
    const open = opened(box);
    const focused = box.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    box.innerHTML = html;
    open.forEach((name) => box.querySelector(`details[data-rp-keep="${CSS.escape(name)}"]`)?.setAttribute("open", ""));
    announce(box);
    if (focused) box.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function follow(box) {
    let wait = SECOND;

    async function refresh() {
      if (document.hidden) {
        document.addEventListener("visibilitychange", refresh, { once: true });
        return;
      }
      try {
        const answer = await fetch(box.dataset.rpProgress, { credentials: "same-origin" });
        // A session that ended answers with the login page.
        if (!answer.ok || answer.redirected) throw new Error(`status ${answer.status}`);
        const html = await answer.text();
        // A form that is being sent is left alone: the answer is another page.
        if (box.querySelector("form[data-rp-sent]")) return;
        replace(box, html);
        box.classList.remove("rp-stale");
        wait = SECOND;
      } catch {
        box.classList.add("rp-stale");
        wait = Math.min(wait * 2, LONGEST_WAIT);
      }
      if (isRunning(box)) setTimeout(refresh, wait);
    }

    setTimeout(refresh, wait);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-rp-progress]").forEach((box) => {
      if (isRunning(box)) follow(box);
    });
  });
})();
