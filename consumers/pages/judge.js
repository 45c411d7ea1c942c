// Judging pairs: shows the next pair at once, sends answers one after the other, and tries again while the network is away.
"use strict";
(() => {
  const judge = document.getElementById("judge");
  const element = (id) => document.getElementById(id);
  const answers = element("answers");
  if (!answers) return; // nothing to judge: the forms of the page do
  const { sample, token } = judge.dataset;
  const ahead = JSON.parse(judge.dataset.pairs); // the pair that is shown, then the next ones
  const unsent = []; // requests that the server has not confirmed
  let isSending = false, isUndoing = false;

  function showSide(id, product) {
    const side = element(id);
    const [image, none, more] = [".shown", ".none", ".more"].map((one) => side.querySelector(one));
    image.hidden = !product.picture; none.hidden = Boolean(product.picture);
    if (product.picture) image.src = product.picture; else image.removeAttribute("src");
    side.querySelector(".title").textContent = product.title;
    side.querySelector(".price").textContent = product.facts[0] ?? "";
    side.querySelector(".others").textContent = product.facts.slice(1).join(" · ");
    more.hidden = !product.url; more.href = product.url ?? "#";
  }

  function show() {
    const pair = ahead[0];
    element("pair").hidden = answers.hidden = !pair;
    element("done").hidden = Boolean(pair) || unsent.length > 0;
    if (!pair) return;
    answers.elements.pair_id.value = pair.pair_id;
    showSide("left", pair.left);
    showSide("right", pair.right);
    for (const next of ahead.slice(1, 3))
      for (const product of [next.left, next.right]) if (product.picture) new Image().src = product.picture;
  }

  function showProgress({ pairs, judged, own }) {
    element("bar").max = pairs; element("bar").value = judged;
    const format = (value) => value.toLocaleString("en");
    element("count").textContent = `${format(judged)} of ${format(pairs)} judged, ${format(own)} by you`;
    element("undo").querySelector("button").disabled = !own && !unsent.length;
    element("rest").textContent = judged === pairs ? "Every pair of this sample is judged."
      : "The pairs that are left are with other labellers at the moment.";
  }

  function say(text) { element("said").textContent = text; }

  function complain(text) {
    element("trouble").hidden = !text;
    element("trouble").textContent = text;
  }

  // Pairs that are shown or come next, and those whose answer is on its way: the server must not send them again.
  function known() {
    return new Set([...ahead.map((one) => one.pair_id), ...unsent.flatMap(([, fields]) => fields.pair_id ?? [])]);
  }

  async function send() {
    if (isSending) return;
    isSending = true;
    for (let wait = 500; unsent.length;) {
      const [path, fields, then] = unsent[0];
      const without = [...known()].join(",");
      const body = new URLSearchParams({ ...fields, sample, without, form_token: token });
      let response;
      try {
        response = await fetch(path, { method: "POST", body, headers: { accept: "application/json" } });
      } catch { response = null; }
      if (response?.ok) {
        const { pairs, progress } = await response.json();
        unsent.shift();
        complain("");
        then(pairs);
        showProgress(progress);
        wait = 500;
      } else if (response && response.status < 500 && response.status !== 429) {
        const { message } = await response.json().catch(() => ({ message: "the service did not take the answer" }));
        const isGone = response.status === 401 || response.status === 403;
        complain(isGone ? "You are signed out, or this page is too old. Load the page again; answers that were not saved are asked again." : message);
        if (isGone) break;
        unsent.shift();
      } else {
        complain(`${unsent.length} not saved yet: the service does not answer. Trying again.`);
        await new Promise((resolve) => setTimeout(resolve, wait));
        wait = Math.min(2 * wait, 10000);
      }
    }
    isSending = false; isUndoing = false;
    show();
  }

  function answer(label) {
    const pair = ahead[0];
    if (!pair || isUndoing || unsent.length > 20) return;
    ahead.shift();
    unsent.push(["/labels/answers", { pair_id: pair.pair_id, label }, (pairs) => {
      const had = known();
      ahead.push(...pairs.filter((one) => !had.has(one.pair_id)));
      if (ahead.length && element("pair").hidden) show();
    }]);
    const button = answers.querySelector(`[value=${label}]`);
    button.classList.add("pressed");
    setTimeout(() => button.classList.remove("pressed"), 180);
    show();
    say(`${label}. ${ahead[0] ? `Next: ${ahead[0].left.title}; and ${ahead[0].right.title}` : ""}`);
    send();
  }

  function undo() {
    if (isUndoing || element("undo").querySelector("button").disabled) return;
    isUndoing = true;
    unsent.push(["/labels/undo", {}, (pairs) => { ahead.unshift(...pairs); say("The last answer is taken back."); }]);
    send();
  }

  answers.addEventListener("submit", (event) => { event.preventDefault(); answer(event.submitter.value); });
  element("undo").addEventListener("submit", (event) => { event.preventDefault(); undo(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !element("keys").checked) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) return;
    const button = [...answers.elements].find((one) => one.getAttribute("aria-keyshortcuts") === event.key
      || (event.code.match(/^(?:Digit|Numpad)([1-4])$/) ?? [])[1] === one.getAttribute("aria-keyshortcuts"));
    if (button && button.value) { event.preventDefault(); answer(button.value); }
    else if (event.key.toLowerCase() === "z") { event.preventDefault(); undo(); }
  });
  addEventListener("beforeunload", (event) => { if (unsent.length) event.preventDefault(); });
  show();
})();
