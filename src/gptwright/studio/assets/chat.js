// What must happen in the browser: keys, focus, the size of the input, following the text as it grows. No request is made here.
window.gw = {
  input: () => document.getElementById("gw-input"),
  busy: () => document.getElementById("gw-stop")?.offsetParent != null,

  // The line to write in
  take() {
    const box = gw.input();
    const text = box.value;
    if (gw.busy() || !text.trim()) return null;
    box.value = "";
    gw.fit(box);
    gw.stick = true;
    return text;
  },
  key(event) {
    // While an input method composes, Enter chooses a word.
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || event.isComposing) return null;
    event.preventDefault();
    return gw.take();
  },
  restore(text) {
    const box = gw.input();
    if (!box.value) box.value = text;
    gw.fit(box);
  },
  fit(box) {
    if (CSS.supports("field-sizing", "content")) return;
    box.style.height = "auto";
    box.style.height = Math.min(box.scrollHeight, window.innerHeight * 0.4) + "px";
  },
  focus() {
    // On a phone the keyboard would jump up after each answer; and whoever works elsewhere on the page is not torn away.
    const at = document.activeElement;
    const elsewhere = at && at !== document.body && at.isConnected && at.matches("textarea, input, select, [data-word], .gw-w, .q-dialog *");
    if (matchMedia("(pointer: fine)").matches && !elsewhere) gw.input()?.focus();
  },

  // What was clicked, for the server
  act(event) {
    const button = event.target.closest?.("[data-act]");
    if (!button || button.disabled) return null;
    const { act, i, k } = button.dataset;
    const text = button.closest(".gw-edit")?.querySelector("textarea")?.value;
    return { act, i, k, text, turn: button.closest("[data-turn]")?.dataset.turn };
  },
  enter(event) {
    const field = event.target.closest?.("[data-enter]");
    const word = event.target.closest?.(".gw-w");
    const turn = event.target.closest?.("[data-turn]")?.dataset.turn;
    if (word) return gw.word(event, word, turn);
    if (!field || event.isComposing) return null;
    if (event.key === "Escape") {
      event.stopPropagation();
      return { act: "cancel", turn };
    }
    if (event.key !== "Enter" || event.shiftKey) return null;
    event.preventDefault();
    return { act: field.dataset.enter, turn, text: field.value };
  },
  to(selector, all) {
    // What is looked for may only now be on its way from the server.
    let tries = 0;
    (function look() {
      const found = document.querySelector(selector);
      if (!found) return tries++ < 40 && setTimeout(look, 25);
      found.focus();
      if (all) found.select?.();
      if (found.tagName === "TEXTAREA") { gw.fit(found); found.setSelectionRange(found.value.length, found.value.length); }
    })();
  },
  pressed(turn, kind) {
    for (const name of ["words", "texts"]) {
      document.querySelector(`[data-turn="${turn}"] .gw-tools [data-act=${name}]`)?.setAttribute("aria-pressed", String(kind === name));
    }
    if (kind === "words") gw.to(`[data-turn="${turn}"] .gw-w`);
  },

  // Words with probabilities: one of them can be reached with Tab, the arrows move among them
  word(event, word, turn) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return { act: "word", i: word.dataset.i, turn };
    }
    if (event.key === "Escape") return { act: "words", turn };
    const all = [...word.parentElement.querySelectorAll(".gw-w")];
    const at = all.indexOf(word);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || !all[to]) return null;
    event.preventDefault();
    word.tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
    return null;
  },
  choices(turn, index, content) {
    gw.unchoose();
    const panel = document.querySelector(`[data-turn="${turn}"] .gw-panel`);
    const word = panel?.querySelector(`.gw-w[data-i="${index}"]`);
    if (!word) return;
    const holder = document.createElement("div");
    holder.innerHTML = content; // made by the server of escaped parts
    const box = holder.firstElementChild;
    panel.append(box);
    const [frame, place] = [panel.getBoundingClientRect(), word.getClientRects()[0]];
    const left = Math.min(Math.max(place.left - frame.left - 12, 0), Math.max(frame.width - box.offsetWidth, 0));
    box.style.left = left + "px";
    box.style.top = place.bottom - frame.top + 6 + "px";
    word.classList.add("gw-at");
    (box.querySelector("button") || box).focus();
    box.scrollIntoView({ block: "nearest" });
  },
  unchoose(back) {
    const box = document.querySelector(".gw-choices");
    const word = document.querySelector(".gw-at");
    box?.remove();
    word?.classList.remove("gw-at");
    if (back) word?.focus();
    return box != null;
  },

  // What this browser keeps: how the page looks, whether judgements may be kept. Conversations are on the server.
  saved() {
    const read = (name) => { try { return JSON.parse(localStorage.getItem("gptwright." + name)); } catch { return null; } };
    return { theme: read("theme"), consent: read("consent"), settings: read("settings") };
  },
  save: (name, value) => localStorage.setItem("gptwright." + name, JSON.stringify(value)),

  place: (id) => history.replaceState(null, "", id ? "/c/" + id : "/"),
  end() {
    gw.stick = true;
    const main = document.getElementById("gw-main");
    setTimeout(() => (main.scrollTop = main.scrollHeight), 50);
  },
  narrow: () => matchMedia("(max-width: 860px)").matches,
  list(show, narrowOnly) {
    const app = document.getElementById("gw-app");
    if (!app || (narrowOnly && !gw.narrow())) return;
    if (gw.narrow()) {
      app.classList.toggle("gw-open", show);
      document.querySelector(".gw-page").inert = show;
      if (show) gw.to("#gw-search");
      else gw.to(".gw-menu button");
    } else {
      app.classList.toggle("gw-closed", !show);
      gw.save("list", show);
      gw.to(show ? "#gw-search" : ".gw-menu button");
    }
  },
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no clipboard without TLS except on this machine
      const box = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(box);
      box.select();
      document.execCommand("copy");
      box.remove();
    }
  },
  code(main) {
    for (const block of main.querySelectorAll(".gw-answer pre:not(:has(.gw-copy))")) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "gw-copy", textContent: "Copy" });
      button.setAttribute("aria-label", "Copy the code");
      block.append(button);
      block.tabIndex = 0; // it can be scrolled
    }
  },
  shortcut(event) {
    const command = event.ctrlKey || event.metaKey;
    const open = [...document.querySelectorAll("[role=dialog], [role=alertdialog], .q-menu")].some((e) => e.offsetParent);
    if (event.key === "Escape") {
      if (gw.unchoose(true)) return true;
      if (document.querySelector(".q-dialog, .q-menu")) return false; // closes by itself
      if (gw.busy()) return document.getElementById("gw-stop").click(), true;
      if (document.querySelector(".gw-app.gw-open")) return gw.list(false), true;
      return false;
    }
    if (open) return false;
    const last = (selector) => [...document.querySelectorAll(selector)].pop();
    if (command && !event.shiftKey && event.key.toLowerCase() === "k") return gw.list(true), true;
    if (command && event.key === "/") return last(".gw-list-foot [data-act=shortcuts]")?.click(), true;
    if (command && event.shiftKey && event.key.toLowerCase() === "o") return last(".gw-new-small [data-act=new]")?.click(), true;
    if (command && event.shiftKey && event.key === "Enter") return last(".gw-turn [data-act=again]")?.click(), true;
    if (event.key === "ArrowUp" && event.target === gw.input() && !gw.input().value) {
      return last(".gw-user [data-act=edit]")?.click(), true;
    }
    return false;
  },
  stick: true,
};
document.addEventListener("keydown", (event) => gw.shortcut(event) && event.preventDefault());
document.addEventListener("input", (event) => event.target.matches("textarea") && gw.fit(event.target));
document.addEventListener("click", (event) => {
  if (!event.target.closest?.(".gw-choices, .gw-w")) gw.unchoose();
  const copy = event.target.closest?.(".gw-copy");
  if (copy) {
    gw.copy(copy.closest("pre").querySelector("code").innerText);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1200);
  }
  const link = event.target.closest?.(".gw-answer a[href]");
  if (!link) return;
  event.preventDefault();
  window.open(link.href, "_blank", "noopener,noreferrer");
});
// The bar that NiceGUI shows while a page loads has no name; a screen reader need not hear of it.
new MutationObserver(() => {
  for (const bar of document.querySelectorAll(".q-loading-bar:not([aria-hidden])")) bar.setAttribute("aria-hidden", "true");
}).observe(document.documentElement, { childList: true, subtree: true });
(function follow() {
  const main = document.getElementById("gw-main");
  if (!main) return setTimeout(follow, 50);
  if (gw.saved && localStorage.getItem("gptwright.list") === "false") document.getElementById("gw-app")?.classList.add("gw-closed");
  main.addEventListener("scroll", () => {
    gw.stick = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
  });
  new MutationObserver(() => {
    gw.code(main);
    if (gw.stick && !main.querySelector(".gw-edit, .gw-words, .gw-texts")) main.scrollTop = main.scrollHeight;
  }).observe(main, { childList: true, subtree: true, characterData: true });
  gw.focus();
})();
