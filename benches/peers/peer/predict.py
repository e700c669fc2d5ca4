"""The classes of one image, from the start of the process on: `transformers`, or torch alone."""

from .task import Task


def run(task: Task) -> dict:
    """Probabilities of the classes."""
    classes = task.classes.split(",")
    prompts = [f"a photo of a {name}." for name in classes]
    found = transformers_way(task, prompts) if task.official else torch_way(task, prompts)
    return {"scores": dict(zip(classes, found))}


def transformers_way(task: Task, prompts: list[str]) -> list[float]:
    """As the model's card shows it."""
    import torch
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    model = CLIPModel.from_pretrained(task.backbone).eval()
    processor = CLIPImageProcessor.from_pretrained(task.backbone)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(task.backbone / "tokenizer.json"), pad_token="<|endoftext|>")
    image = processor(Image.open(task.data).convert("RGB"), return_tensors="pt")
    text = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        device = torch.get_default_device()
        model, text, image = model.to(device), text.to(device), image.to(device)
        logits = model(text.input_ids, image.pixel_values, text.attention_mask).logits_per_image
    return logits.softmax(1)[0].tolist()


def torch_way(task: Task, prompts: list[str]) -> list[float]:
    """Weights mapped from their file, and nothing imported that is not needed."""
    import torch

    from .photos import centre, decoded, here
    from .texts import Tokens, ends
    from .towers import Towers, unit

    towers = Towers.open(task.backbone, eager=False)
    rows = Tokens(task.backbone, padded=False).rows(prompts)
    with torch.inference_mode():
        image = unit(towers.image(here(centre(decoded(task.data))[None])))
        text = unit(towers.text(rows, ends(rows)))
        return (towers.scale * image @ text.T).softmax(1)[0].tolist()
