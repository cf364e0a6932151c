// Puts the chat on another page: <script src="https://…/public/widget.js" defer></script>
(async () => {
  const { src, dataset } = document.currentScript; // gone after the first await
  const server = new URL(src).origin;
  const options = { credentials: "include" };
  try {
    const user = await fetch(`${server}/user`, options);
    if (user.status === 401) await fetch(`${server}/auth/header`, { method: "POST", ...options });
  } catch {
    console.error("스마트스토어 FAQ 도우미에 연결하지 못했습니다.");
    return;
  }
  const script = document.createElement("script");
  script.src = `${server}/copilot/index.js`;
  script.addEventListener("load", () =>
    window.mountChainlitWidget({
      chainlitServer: server,
      customCssUrl: `${server}/public/page.css`,
      theme: dataset.theme,
      language: "ko-KR",
    }),
  );
  document.head.append(script);
})();
