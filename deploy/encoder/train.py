"""Train the upper layers of the encoder on sellers' questions, and write what smartstore_indexing ships.

    .venv/bin/pip install -r deploy/encoder/requirements.txt
    .venv/bin/python deploy/encoder/train.py FAQ QUERIES.jsonl TALKS.jsonl UNANSWERABLE.jsonl --out FOLDER

The files have the forms of `smartstore eval`: queries and talks name the rows of the FAQ that answer them. The sample
FAQ with training_queries.jsonl and the lines of scope_lines.jsonl take part too. About 30 minutes on 2 cores for
11,000 questions, 3 GB. Three losses are learned at once:

- a question's vector is nearest to its own FAQ among those of the batch, which holds groups of neighbouring FAQs
  (InfoNCE, van den Oord et al. 2018, both ways); near-duplicates of an FAQ are no negatives;
- a linear head on the vector tells questions in scope from others;
- cosines are calibrated across questions: a question with its FAQ lies above a threshold, with the hardest others
  below, and so does a question that no FAQ answers with its nearest (pairwise logistic loss, Zhai et al. 2023).

A follow-up is trained as it is searched: joined to the question before it, as `understanding.joined` does.
"""

import argparse
import math
import random
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import torch
from model import DIMENSIONS, PAD, Encoder, export, kept_pieces, read_e5, tokenizer_of
from torch import Tensor, nn
from torch.nn import functional
from typos import misspelt

from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.faq import FAQ
from smartstore_indexing.loading import SAMPLE, load
from smartstore_indexing.nodes import embedded_text
from smartstore_workflows.evaluation import Line, read_set, turns_of
from smartstore_workflows.events import Turn
from smartstore_workflows.fitting import scope_lines
from smartstore_workflows.understanding import joined

FROZEN = 6  # of 12 layers: their states are computed once
BATCH, GROUP, NEIGHBOURS = 32, 4, 24
TEMPERATURE = 0.02
SAME = 0.985  # cosine of two titles, before training, from which they ask the same
TITLE_SHARE = 0.55  # of the documents shown as their title, the others as question and answer
MISSPELT_SHARE = 0.25
LEARNING_RATE, HEAD_RATE, WARM_UP = 5e-5, 3e-3, 40
SCOPE_LINES, SCOPE_QUESTIONS, UNANSWERED = 10, 6, 3  # in a batch
SCOPE_WEIGHT, CALIBRATION_WEIGHT = 0.3, 0.15
MOST_TOKENS, CHUNK = 64, 16
JOINED, MOST_JOINED = (
    1_500,
    60,
)  # follow-ups of each made kind, and the longest question, in characters, that becomes one

Pair = tuple[str, FAQ]


class States:
    """The states of texts after the frozen layers, kept as float16."""

    def __init__(self, encoder: Encoder, vocabulary: list[tuple[str, float]]) -> None:
        """Hold the encoder."""
        self._encoder = encoder
        self._tokenizer = tokenizer_of(vocabulary)
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.enable_padding(pad_id=PAD, pad_token="<pad>")  # noqa: S106
        self._states: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, texts: Sequence[str]) -> None:
        """Compute the states of texts."""
        wanted = sorted({text for text in texts if text not in self._states}, key=len)
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            encoded = self._tokenizer.encode_batch(batch)
            mask = torch.tensor([text.attention_mask for text in encoded])
            states = self._encoder.below(torch.tensor([text.ids for text in encoded]), mask, FROZEN)
            for text, found, length in zip(batch, states, mask.sum(1), strict=True):
                self._states[text] = found[: int(length)].half()

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (n, 384) of texts that were added, through the layers in training."""
        order = sorted(range(len(texts)), key=lambda place: len(self._states[texts[place]]))
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(order), CHUNK):
            places = order[start : start + CHUNK]
            states = [self._states[texts[place]].float() for place in places]
            padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
            mask = torch.tensor([[at < len(state) for at in range(padded.shape[1])] for state in states])
            for place, vector in zip(places, self._encoder.above(padded, mask, FROZEN), strict=True):
                found[place] = vector
        return torch.stack(found)


def question(text: str) -> str:
    """Return a question with e5's prefix."""
    return f"query: {text}"


def documents(faq: FAQ) -> tuple[str, str]:
    """Return an FAQ's two texts with e5's prefix."""
    return f"passage: {embedded_text(faq, 'question')}", f"passage: {embedded_text(faq, 'answer')}"


def batches(pairs: Sequence[Pair], near: dict[str, list[str]], chance: random.Random) -> Iterator[list[Pair]]:
    """Yield batches of pairs of different FAQs, in groups of neighbours; each pair at most once."""
    waiting: dict[str, list[Pair]] = {}
    for pair in chance.sample(list(pairs), len(pairs)):
        waiting.setdefault(pair[1].id, []).append(pair)
    seeds = [faq_id for faq_id, held in waiting.items() for _ in held]
    chance.shuffle(seeds)
    batch: dict[str, Pair] = {}
    for seed in seeds:
        group = [faq_id for faq_id in (seed, *near[seed]) if waiting.get(faq_id) and faq_id not in batch][:GROUP]
        for faq_id in group if group[:1] == [seed] else []:
            batch[faq_id] = waiting[faq_id].pop()
        if len(batch) >= BATCH:
            yield list(batch.values())[:BATCH]
            batch = {}


def labelled(faqs: Sequence[FAQ], lines: Sequence[Line]) -> list[Pair]:
    """Return the questions with the first FAQ that answers them; a follow-up joined to what came before, and alone."""
    rows = {faq.row: faq for faq in faqs}
    pairs = []
    for line in lines:
        faq = rows[line.gold[0]]
        if line.history:
            pairs.append((joined(turns_of(line.history)[-1], line.query), faq))
        pairs.append((line.standalone or line.query, faq))
    return pairs


def switched(pairs: Sequence[Pair], chance: random.Random) -> list[Pair]:
    """Return questions joined to a question about something else: their own FAQ still answers them."""
    others = chance.sample(list(pairs), len(pairs))
    turns = [Turn(question=text, standalone=text, answer=faq.answer, kind="answered") for text, faq in others]
    return [(joined(turn, text), faq) for turn, (text, faq) in zip(turns, pairs, strict=True)]


def shortened(pairs: Sequence[Pair], near: dict[str, list[str]], chance: random.Random) -> list[Pair]:
    """Return questions without the words that a question about a neighbouring FAQ, asked before them, has said."""
    asked: dict[str, list[Pair]] = {}
    for text, faq in pairs:
        asked.setdefault(faq.id, []).append((text, faq))
    found = []
    for text, faq in pairs:
        before = [pair for faq_id in near[faq.id][:12] for pair in asked.get(faq_id, ())]
        if not before:
            continue
        said, about = chance.choice(before)
        words = text.split()
        kept = [word for word in words if len(word) < 2 or word[:2] not in said]
        if 2 <= len(kept) < len(words):
            turn = Turn(question=said, standalone=said, answer=about.answer, kind="answered")
            found.append((joined(turn, " ".join(kept)), faq))
    return found


class Trainer:
    """The encoder in training, its scope head, and the scale and threshold that make cosines comparable."""

    def __init__(self, encoder: Encoder, states: States, faqs: Sequence[FAQ]) -> None:
        """Look the FAQs' neighbours up by their titles."""
        self._encoder, self._states = encoder, states
        self._head = nn.Linear(DIMENSIONS, 1)
        nn.init.zeros_(self._head.weight)
        self._calibration = nn.Parameter(torch.tensor([20.0, 0.8]))
        titles = [documents(faq)[0] for faq in faqs]
        states.add(titles)
        with torch.no_grad():
            vectors = torch.cat([states.vectors(titles[start : start + 256]) for start in range(0, len(titles), 256)])
        self._faqs, self._titles, self._cosines = faqs, vectors, vectors @ vectors.T
        self._places = {faq.id: place for place, faq in enumerate(faqs)}
        nearest = self._cosines.topk(min(NEIGHBOURS + 1, len(faqs)), 1).indices[:, 1:]
        self.near = {faq.id: [faqs[place].id for place in row] for faq, row in zip(faqs, nearest.tolist(), strict=True)}

    def train(
        self,
        pairs: Sequence[Pair],
        scope: Sequence[tuple[str, bool]],
        unanswered: Sequence[str],
        epochs: float,
        chance: random.Random,
    ) -> None:
        """Train on pairs for so many epochs, and print the losses."""
        layers = [weight for layer in self._encoder.layers[FROZEN:] for weight in layer.parameters()]
        groups = [
            {"params": layers, "lr": LEARNING_RATE},
            {"params": [*self._head.parameters(), self._calibration], "lr": HEAD_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        steps = int(len(pairs) / BATCH * epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        )
        hardest = self._nearest(unanswered)
        step = 0
        while step < steps:
            for batch in batches(pairs, self.near, chance):
                lines = chance.sample(list(scope), SCOPE_LINES)
                places = chance.sample(range(len(unanswered)), UNANSWERED)
                wrong = [(unanswered[place], chance.choice(hardest[place])) for place in places for _ in range(2)]
                losses = self._losses(batch, lines, wrong, chance)
                optimizer.zero_grad()
                (losses[0] + SCOPE_WEIGHT * losses[1] + CALIBRATION_WEIGHT * losses[2]).backward()
                nn.utils.clip_grad_norm_(layers, 1.0)
                optimizer.step()
                schedule.step()
                step += 1
                if step % 50 == 0 or step == steps:
                    sys.stdout.write(f"{step}/{steps} " + " ".join(f"{loss.item():.3f}" for loss in losses) + "\n")
                if step == steps:
                    return

    def _nearest(self, texts: Sequence[str]) -> list[list[FAQ]]:
        """Return the ten FAQs whose titles lie nearest to each text before training."""
        with torch.no_grad():
            cosines = self._states.vectors([question(text) for text in texts]) @ self._titles.T
        return [[self._faqs[place] for place in row] for row in cosines.topk(10, 1).indices.tolist()]

    def _losses(
        self, batch: Sequence[Pair], lines: Sequence[tuple[str, bool]], wrong: Sequence[Pair], chance: random.Random
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses of the search, of the scope and of the calibration."""
        asked = [text for text, _ in batch] + [text for text, _ in lines] + [text for text, _ in wrong]
        vectors = self._states.vectors([question(text) for text in asked])
        questions, strangers = vectors[: len(batch)], vectors[len(batch) + len(lines) :]
        faqs = [faq for _, faq in (*batch, *wrong)]
        found = self._states.vectors([documents(faq)[chance.random() >= TITLE_SHARE] for faq in faqs])
        cosines = questions @ found[: len(batch)].T
        places = torch.tensor([self._places[faq.id] for _, faq in batch])
        same = (self._cosines[places][:, places] > SAME) & ~torch.eye(len(batch), dtype=torch.bool)
        scores = (cosines / TEMPERATURE).masked_fill(same, -1e4)
        own = torch.arange(len(batch))
        search = 0.7 * functional.cross_entropy(scores, own) + 0.3 * functional.cross_entropy(scores.T, own)

        judged = torch.cat([vectors[len(batch) : len(batch) + len(lines)], questions[:SCOPE_QUESTIONS], strangers])
        labels = torch.tensor([float(inside) for _, inside in lines] + [1.0] * (SCOPE_QUESTIONS + len(strangers)))
        scope = functional.binary_cross_entropy_with_logits(self._head(judged * 20)[:, 0], labels)

        scale, threshold = self._calibration
        others = cosines.masked_fill(same | torch.eye(len(batch), dtype=torch.bool), -1.0).topk(2, 1).values
        unanswered = (strangers * found[len(batch) :]).sum(1)
        calibration = functional.softplus(-scale * (cosines.diagonal() - threshold)).mean() + 0.5 * sum(
            functional.softplus(scale * (wrongly - threshold)).mean() for wrongly in (others, unanswered)
        )
        return search, scope, calibration


def main(arguments: argparse.Namespace) -> None:
    """Train and export."""
    chance = random.Random(0)  # noqa: S311
    torch.manual_seed(0)
    own, sample = clean_all(load(arguments.faq)), clean_all(load(SAMPLE))
    shipped = read_set(Path(str(resources.files("smartstore_workflows"))) / "training_queries.jsonl")
    queries = labelled(own, read_set(arguments.queries).lines) + labelled(sample, shipped.lines)
    talks = labelled(own, read_set(arguments.talks).lines)
    scope = [(line.query, line.label == "in") for line in scope_lines()]
    unanswered = [line.query for line in read_set(arguments.unanswerable).lines]

    tensors, vocabulary = read_e5()
    kept = kept_pieces(vocabulary)
    vocabulary = [vocabulary[place] for place in kept]
    encoder = Encoder(tensors, kept)
    states = States(encoder, vocabulary)
    trainer = Trainer(encoder, states, [*own, *sample])
    pairs = [*queries, *talks]
    pairs += [(misspelt(text, chance), faq) for text, faq in queries if chance.random() < MISSPELT_SHARE]
    short = [pair for pair in chance.sample(queries, len(queries)) if len(pair[0]) < MOST_JOINED]
    pairs += switched(short[:JOINED], chance) + shortened(short, trainer.near, chance)[:JOINED]
    states.add([question(text) for text, _ in (*pairs, *scope)] + [question(text) for text in unanswered])
    states.add([text for faq in (*own, *sample) for text in documents(faq)])
    trainer.train(pairs, scope, unanswered, arguments.epochs, chance)
    export(encoder, tokenizer_of(vocabulary), arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("faq", "queries", "talks", "unanswerable"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=0.85)
    main(parser.parse_args())
