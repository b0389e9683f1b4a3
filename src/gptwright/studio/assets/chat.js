// What must happen in the browser: keys, the size of the input, following the text as it grows. No request is made here.
window.gw = {
  input: () => document.getElementById("gw-input"),
  busy: () => document.getElementById("gw-stop")?.offsetParent != null,
  take() {
    const box = gw.input();
    const text = box.value;
    if (gw.busy() || !text.trim()) return null;
    box.value = "";
    gw.fit();
    gw.stick = true;
    return text;
  },
  key(event) {
    // While an input method composes, Enter chooses a word.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return null;
    event.preventDefault();
    return gw.take();
  },
  restore(text) {
    const box = gw.input();
    if (!box.value) box.value = text;
    gw.fit();
  },
  fit() {
    const box = gw.input();
    if (CSS.supports("field-sizing", "content")) return;
    box.style.height = "auto";
    box.style.height = Math.min(box.scrollHeight, window.innerHeight * 0.4) + "px";
  },
  focus() {
    // On a phone the keyboard would jump up after each answer.
    if (matchMedia("(pointer: fine)").matches) gw.input()?.focus();
  },
  stick: true,
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && gw.busy()) document.getElementById("gw-stop").click();
});
document.addEventListener("input", (event) => event.target.id === "gw-input" && gw.fit());
document.addEventListener("click", (event) => {
  const link = event.target.closest?.(".gw-answer a[href]");
  if (!link) return;
  event.preventDefault();
  window.open(link.href, "_blank", "noopener,noreferrer");
});
(function follow() {
  const main = document.getElementById("gw-main");
  if (!main) return setTimeout(follow, 50);
  main.addEventListener("scroll", () => {
    gw.stick = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
  });
  new MutationObserver(() => gw.stick && (main.scrollTop = main.scrollHeight)).observe(main, {
    childList: true, subtree: true, characterData: true,
  });
  gw.focus();
})();
