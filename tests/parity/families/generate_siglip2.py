"""Makes `siglip2/`: a tiny SigLIP 2 for images of one size, and what transformers computes with it.

    python generate_siglip2.py        (in this folder)

Made with transformers 5.24.0, whose `Siglip2Tokenizer` is the reference for texts; `generate.py` needs an older version. The
folder looks like the released ones: the `tokenizer.json` is Gemma's and keeps the case of letters, `tokenizer_config.json`
calls it so, and whoever reads it has to know that the model was trained on lower case. Texts end with `<eos>` and are filled
behind it with `<pad>`, which is another token, unlike SigLIP's.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import Siglip2Tokenizer, SiglipConfig, SiglipModel

import generate as shared

HERE = Path(__file__).parent
CONTEXT = 12
TEXTS = ["A Photo of a CAT.", "", "a small dog on a mat", "caf\u00e9 \u0394", "Cat " * 30]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


def gemma(folder):
    """A byte-pair encoding with the rules of Gemma: no space in front, bytes for what has no piece."""
    words = [f"\u2581{word}" for word in "a cat dog mat on small photo of".split()]
    letters = sorted({letter for word in words for letter in word} | set(".CA"))
    pieces, merges = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + letters, []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[:end - 1], word[end - 1]))
    ids = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True, "padding_side": "right",
              "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer, len(pieces)


@torch.no_grad()
def main():
    folder = HERE / "siglip2"
    folder.mkdir(exist_ok=True)
    cased, vocabulary = gemma(folder)
    tokenizer = Siglip2Tokenizer.from_pretrained(folder)
    filled = dict(padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    ids = tokenizer(TEXTS, **filled).input_ids
    assert ids[0, -1] == 0 and (ids == 1).sum(1).eq(1).all(), ids
    assert ids[0].tolist() != cased.encode(TEXTS[0]).ids + [0] * (CONTEXT - len(cased.encode(TEXTS[0]).ids))
    shape = dict(num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    model = shared.randomise(SiglipModel(SiglipConfig(
        vision_config=dict(hidden_size=24, image_size=24, patch_size=8, **shape),
        text_config=dict(hidden_size=24, projection_size=24, max_position_embeddings=CONTEXT, vocab_size=vocabulary,
                         bos_token_id=2, eos_token_id=1, pad_token_id=0, **shape))), 31)
    found = {"pixels": shared.pixels(3, 3, 24, 32), "input_ids": ids.to(torch.int32)}
    hooks = shared.streams(model.vision_model.encoder.layers, "vision", found)
    hooks += shared.streams(model.text_model.encoder.layers, "text", found)
    output = model(input_ids=ids, pixel_values=found["pixels"])
    for hook in hooks:
        hook.remove()
    found["image_features"] = model.vision_model(found["pixels"]).pooler_output
    found["text_features"] = model.text_model(ids).pooler_output
    found["logits_per_image"] = output.logits_per_image
    shared.write(folder, model.config, model.state_dict(), 24)
    shared.expect(folder, found, TEXTS)
    print(ids)


if __name__ == "__main__":
    main()
