import { Button } from "@/components/ui/button"
import * as markdown from "@/components/markdown"
import { useChatData, useChatMessages } from "@chainlit/react-client"
import { ChevronDown, CornerDownRight, RotateCcw } from "lucide-react"
import { useEffect, useLayoutEffect, useRef, useState } from "react"

// What stands under an answer: its sources as cards that open, its follow-ups as buttons, and who wrote it.
export default function AnswerFooter() {
  const { sources = [], follow_ups = [], retry, notes = [] } = props
  const [opened, setOpened] = useState(null)
  const root = useRef(null)
  const { loading } = useChatData()
  const { threadId } = useChatMessages()

  // [1] in the answer's text opens its card, from the moment that the card is seen.
  useLayoutEffect(() => {
    const content = root.current?.closest(".message-content")
    const follow = (event) => {
      const link = event.target.closest?.('a[href^="#source-"]')
      if (!link) return
      event.preventDefault()
      const n = Number(link.getAttribute("href").slice("#source-".length))
      setOpened(n)
      root.current?.querySelector(`[data-source="${n}"]`)?.focus()
    }
    content?.addEventListener("click", follow)
    return () => content?.removeEventListener("click", follow)
  }, [])

  // Where there is no list of earlier chats to do it, as on a phone, the address names the chat: a reload opens it again.
  useEffect(() => {
    const address = `/thread/${threadId}`
    if (!threadId || location.pathname !== "/" || !document.contains(root.current)) return
    history.replaceState(history.state, "", address)
    return () => location.pathname === address && history.replaceState(history.state, "", "/")
  }, [threadId])

  const act = (name, payload) => () => callAction({ name, payload })
  return (
    <div ref={root} className="answer-footer">
      {sources.length > 0 && (
        <section aria-label="도움말" className="source-cards">
          {sources.map(({ n, category, question, answer }) => (
            <article key={n} className={n === opened ? "source-card source-opened" : "source-card"}>
              <button
                type="button"
                className="source-title"
                data-source={n}
                aria-expanded={n === opened}
                onClick={() => setOpened(n === opened ? null : n)}
              >
                <span className="source-number">{n}</span>
                <span className="source-names">
                  <span className="source-category">{category}</span>
                  <span className="source-question">{question}</span>
                </span>
                <ChevronDown className="source-arrow" aria-hidden />
              </button>
              {n === opened && (
                <div className="source-text">
                  <markdown.Markdown>{answer}</markdown.Markdown>
                </div>
              )}
            </article>
          ))}
        </section>
      )}
      {follow_ups.length > 0 && (
        <section aria-label="추천 질문" className="follow-ups">
          {follow_ups.map((offer) => (
            <Button
              key={offer.faq_id}
              variant="outline"
              className="follow-up"
              disabled={loading}
              onClick={act("follow_up", offer)}
            >
              <CornerDownRight className="shrink-0 text-primary" />
              {offer.text}
            </Button>
          ))}
        </section>
      )}
      {retry && (
        <Button variant="outline" className="retry" disabled={loading} onClick={act("retry", retry)}>
          <RotateCcw />
          다시 시도
        </Button>
      )}
      {notes.length > 0 && <p className="answer-notes">{notes.join(" · ")}</p>}
    </div>
  )
}
