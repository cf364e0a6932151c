// Runs before the page's program, and mends what it leaves undone.
(() => {
  const KEY = "vite-ui-theme";
  const asked = new URLSearchParams(location.search).get("theme");
  if (["light", "dark", "system"].includes(asked)) localStorage.setItem(KEY, asked);
  else if (!localStorage.getItem(KEY)) localStorage.setItem(KEY, "system");

  // A question that is sent before the page is connected is sent once it is; Chainlit's Enter does nothing until then.
  const WAIT_MS = 10000;
  const ready = () => document.querySelector("#chat-submit:not([disabled])");
  document.addEventListener("keydown", (event) => {
    const { target, key, shiftKey, isComposing } = event;
    if (target.id !== "chat-input" || key !== "Enter" || shiftKey || isComposing || ready()) return;
    if (!target.value?.trim() || document.querySelector("#stop-button")) return;
    event.preventDefault();
    const until = Date.now() + WAIT_MS;
    const waiting = setInterval(() => {
      if (ready()) ready().click();
      if (ready() || Date.now() > until) clearInterval(waiting);
    }, 50);
  }, true);

  // What was typed outlives the page's making itself anew, which it does once its settings have come.
  let draft = "";
  let box = null;
  const sent = () => (draft = "");
  document.addEventListener("input", ({ target }) => {
    if (target.id === "chat-input") draft = target.value;
  });
  document.addEventListener("click", ({ target }) => target.closest?.("#chat-submit, #starters button") && sent(), true);
  document.addEventListener("keydown", ({ target, key, shiftKey, isComposing }) => {
    if (target.id === "chat-input" && key === "Enter" && !shiftKey && !isComposing && ready()) sent();
  }, true);
  const keep = () => {
    const now = document.querySelector("#chat-input");
    if (!now || now === box) return;
    box = now;
    if (!draft || now.value) return;
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(now, draft);
    now.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // Names for the buttons that are only pictures, for those who hear the page.
  const NAMES = {
    "#chat-submit": "질문 보내기",
    "#stop-button": "답변 멈추기",
    "#new-chat-button": "새 대화",
    "#sidebar-trigger-button": "지난 대화 열고 닫기",
    "#search-chats-button": "지난 대화에서 찾기",
    "#user-nav-button": "내 계정",
    "button:has(> svg.lucide-copy)": "답변 복사",
    "button:has(> svg.lucide-thumbs-up)": "도움이 되었어요",
    "button:has(> svg.lucide-thumbs-down)": "도움이 되지 않았어요",
    "button:has(> svg.lucide-message-circle)": "남긴 의견",
    "#thread-history button:has(> svg)": "대화 메뉴",
  };
  const ours = new Set(Object.values(NAMES));
  const name = () => {
    for (const [selector, label] of Object.entries(NAMES))
      for (const button of document.querySelectorAll(selector)) {
        const named = button.getAttribute("aria-label"); // one button may become another
        if (named !== label && (!named || ours.has(named))) button.setAttribute("aria-label", label);
      }
  };
  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      name();
      keep();
    });
  }).observe(document, { childList: true, subtree: true });

  // Answers are Markdown whose own characters are escaped: a copied answer is plain text again.
  const plain = (markdown) =>
    markdown.replace(/\[\[(\d+)\]\]\(#source-\d+\)/g, "[$1]").replace(/\\([\\`*_{}[\]<>#|~:!$])/g, "$1");
  const { clipboard } = navigator;
  if (!clipboard?.write) return;
  const write = clipboard.write.bind(clipboard);
  clipboard.write = async (items) => {
    const cleaned = await Promise.all(
      items.map(async (item) => {
        const parts = {};
        for (const type of item.types) {
          const blob = await item.getType(type);
          parts[type] = type === "text/plain" ? new Blob([plain(await blob.text())], { type }) : blob;
        }
        return new ClipboardItem(parts);
      }),
    );
    return write(cleaned);
  };
})();
