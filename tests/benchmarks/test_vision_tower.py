"""The suite of image towers: what it says of a prefill, on a language model that takes no time."""

from __future__ import annotations

from benchmarks.vision_tower import TEXT, prefill_part

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}


def test_a_prefill_is_timed_with_all_tokens_and_with_those_kept() -> None:
    found = prefill_part(TINY, 8, (12, 6), 3)
    assert found["image_tokens"] == {"all": 12, "kept": 6} and found["text_tokens"] == TEXT
    assert 0 < found["speedup"]["least"] <= found["speedup"]["median"] <= found["speedup"]["most"]
    assert min(found["median_seconds"].values()) > 0
