// Shows places, progress and finished pictures while a job waits or is in work.
"use strict";
(() => {
  const jobs = document.getElementById("jobs");
  const trouble = document.getElementById("trouble");
  let shown = jobs.innerHTML;
  const hasOpenJobs = () => jobs.querySelector("[data-open]") !== null;
  async function update() {
    let wait = 700;
    try {
      const response = await fetch("/pictures/jobs");
      if (!response.ok || response.redirected) throw new Error(response.status);
      const fresh = await response.text();
      trouble.hidden = true;
      const focused = document.activeElement?.closest(".jobs li")?.id;
      if (fresh !== shown) {
        jobs.innerHTML = shown = fresh; // the service has escaped it, as on the page itself
        if (focused) document.getElementById(focused)?.querySelector("button")?.focus();
      }
    } catch {
      trouble.textContent = "The studio does not answer. Trying again.";
      trouble.hidden = false;
      wait = 5000;
    }
    if (hasOpenJobs() || !trouble.hidden) setTimeout(update, wait);
  }
  if (hasOpenJobs()) setTimeout(update, 700);
})();
