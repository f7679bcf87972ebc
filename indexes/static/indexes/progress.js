// Keeps the progress of a running build up to date, and stops when the build has ended.
"use strict";

(() => {
  const SECOND = 1000;
  const LONGEST_WAIT = 15 * SECOND;

  const isRunning = (box) => Boolean(box.querySelector("[data-running='1']"));

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
        box.innerHTML = await answer.text();
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
