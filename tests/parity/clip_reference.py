"""What the CLIP generators of this folder share: data paths, a reduced tokenizer, random weights, reference outputs.

The reference implementation is `transformers.CLIPModel`. Nothing here is needed to run the Rust tests: they read the
committed fixtures only.
"""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


def data_folder():
    """The real data: `INARCH_TEST_DATA`, or `shared/data` beside the workspace."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("INARCH_TEST_DATA", beside))


def reduced_tokenizer(merges):
    """The CLIP tokenizer cut to its byte symbols, its first `merges` merges and the two special tokens.

    The same rule as `inarch_core::reduce_vocabulary`; the result has `514 + merges` entries, END being the last.
    """
    file = json.loads((data_folder() / "text" / "tokenizer.json").read_text(encoding="utf-8"))
    old = file["model"]["vocab"]
    symbols = [token for token in sorted(old, key=old.get) if len(token.removesuffix("</w>")) == 1][:512]
    assert len(symbols) == 512
    kept = [pair if isinstance(pair, str) else " ".join(pair) for pair in file["model"]["merges"][:merges]]
    tokens = symbols + [pair.replace(" ", "") for pair in kept] + [BEGIN, END]
    vocab = {token: number for number, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)
    file["model"].update(vocab=vocab, merges=kept)
    for token in file["added_tokens"]:
        token["id"] = vocab[token["content"]]
    file["post_processor"].update(sep=[END, vocab[END]], cls=[BEGIN, vocab[BEGIN]])
    return json.dumps(file, ensure_ascii=False, separators=(",", ":"))


def padded(tokenizer_json, texts, context, pad):
    """Token ids `[texts, context]`, BEGIN and END around each text, cut with END kept, filled with `pad`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.enable_truncation(context)
    rows = [tokenizer.encode(text).ids for text in texts]
    return torch.tensor([row + [pad] * (context - len(row)) for row in rows], dtype=torch.int64)


def random_model(config: CLIPConfig, seed):
    """A CLIP model in which no parameter is trivial: gains differ from one, biases from zero, widths keep the scale."""
    model = CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            if name == "logit_scale":
                value.copy_(2.5 + 0.2 * noise)
            elif "norm" in name or "layrnorm" in name:
                value.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                value.copy_(0.1 * noise)
            elif "embedding" in name and "patch" not in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise * value[0].numel() ** -0.5)
    return model


def random_pixels(config: CLIPConfig, count, seed):
    """Normalised pixels `[count, 3, side, side]` as a processor would give them."""
    side = config.vision_config.image_size
    generator = torch.Generator().manual_seed(seed)
    grey = torch.rand((count, 3, side, side), generator=generator)
    return (grey - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def outputs(model, pixels, ids):
    """Every number that a port can be compared with, by name.

    `vision.hidden.0` is what enters the first block (after the first norm), `vision.hidden.i` what leaves block `i`
    counted from one; the same for `text`. Features are projected and not normalised; logits are scaled cosines.
    """
    found = {"pixels": pixels, "input_ids": ids.to(torch.int32)}
    hooks = []
    for tower, encoder in (("vision", model.vision_model.encoder), ("text", model.text_model.encoder)):

        def enter(_, inputs, tower=tower):
            found[f"{tower}.hidden.0"] = inputs[0]

        hooks.append(encoder.layers[0].register_forward_pre_hook(enter))
        for number, layer in enumerate(encoder.layers, start=1):

            def leave(_, __, output, key=f"{tower}.hidden.{number}"):
                found[key] = output[0] if isinstance(output, tuple) else output

            hooks.append(layer.register_forward_hook(leave))
    with torch.no_grad():
        vision = model.vision_model(pixel_values=pixels)
        text = model.text_model(input_ids=ids)
        for hook in hooks:
            hook.remove()
        found["vision.pooled"], found["text.pooled"] = vision.pooler_output, text.pooler_output
        found["text.last"] = text.last_hidden_state
        found["image_features"] = image_features = model.visual_projection(vision.pooler_output)
        found["text_features"] = text_features = model.text_projection(text.pooler_output)
        logits = found["logits_per_image"] = model(input_ids=ids, pixel_values=pixels).logits_per_image
    unit = torch.nn.functional.normalize
    check = model.logit_scale.exp() * unit(image_features, dim=-1) @ unit(text_features, dim=-1).T
    assert torch.allclose(check, logits, atol=1e-4), "the names of this file are wrong"
    return {name: value.detach().contiguous().clone() for name, value in found.items()}


def write_expected(folder, found, texts):
    """`expected.safetensors`; the texts behind `input_ids` are in its metadata as a JSON list."""
    save_file(found, Path(folder) / "expected.safetensors", {"texts": json.dumps(texts, ensure_ascii=False)})


def preprocessor(side, legacy=False):
    """`preprocessor_config.json`; `legacy` writes sizes as plain numbers, as files of 2021 do."""
    return {
        "crop_size": side if legacy else {"height": side, "width": side},
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type" if legacy else "image_processor_type": "CLIPFeatureExtractor" if legacy else "CLIPImageProcessor",
        "image_mean": MEAN,
        "image_std": STD,
        "resample": 3,
        "size": side if legacy else {"shortest_edge": side},
    } | ({} if legacy else {"do_convert_rgb": True, "do_rescale": True, "rescale_factor": 1 / 255})


def write_json(path, value):
    """JSON with two spaces and a closing newline."""
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def plain_config(config: CLIPConfig):
    """`config.json` without what changes with the version of the library."""
    keep = {
        "text_config": ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                        "max_position_embeddings", "hidden_act", "layer_norm_eps", "projection_dim", "bos_token_id",
                        "eos_token_id", "pad_token_id"],
        "vision_config": ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps",
                          "projection_dim"],
    }
    full = config.to_dict()
    head = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": config.projection_dim,
            "logit_scale_init_value": 2.6592, "torch_dtype": "float32"}
    types = {"text_config": "clip_text_model", "vision_config": "clip_vision_model"}
    return head | {part: {"model_type": types[part]} | {key: full[part][key] for key in keys}
                   for part, keys in keep.items()}


def write_backbone(folder, model, tokenizer_json, *, legacy=False, dtype=None):
    """A complete folder in the Hugging Face layout, re-read to prove that the reference implementation takes it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to(dtype or value.dtype).contiguous() for name, value in model.named_parameters()}
    if legacy:
        # Checkpoints of 2021 to 2023 carry these integer buffers; a reader must skip them.
        text, vision = model.config.text_config, model.config.vision_config
        count = (vision.image_size // vision.patch_size) ** 2 + 1
        state["text_model.embeddings.position_ids"] = torch.arange(text.max_position_embeddings).unsqueeze(0)
        state["vision_model.embeddings.position_ids"] = torch.arange(count).unsqueeze(0)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = plain_config(model.config)
    if dtype is not None:
        config["torch_dtype"] = str(dtype).removeprefix("torch.")
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", preprocessor(model.config.vision_config.image_size, legacy))
    (folder / "tokenizer.json").write_text(tokenizer_json + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END,
        "model_max_length": model.config.text_config.max_position_embeddings, "do_lower_case": True,
    })
    return CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
