// Runs before the page's program. Which theme it opens in, and what "copy" puts on the clipboard.
(() => {
  const KEY = "vite-ui-theme";
  const asked = new URLSearchParams(location.search).get("theme");
  if (["light", "dark", "system"].includes(asked)) localStorage.setItem(KEY, asked);
  else if (!localStorage.getItem(KEY)) localStorage.setItem(KEY, "system");

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
