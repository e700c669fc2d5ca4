"""The peer of `inarch serve`: FastAPI over transformers and PEFT, with class features computed once for each adapter.

    python serve.py BACKBONE ADAPTERS COUNT PORT switch|mixed

`switch` runs requests one by one and calls `set_adapter` when the adapter changes, as most servers of this kind do. `mixed` gathers
what waits into batches of up to 32 and passes `adapter_names`, which PEFT offers for LoRA.
"""

import asyncio
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, Request
from peft import PeftModel
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

BATCH = 32
backbone, adapters, count, port, mode = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
torch.set_grad_enabled(False)
torch.set_num_threads(2)
processor = CLIPImageProcessor.from_pretrained(backbone)
tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{backbone}/tokenizer.json", pad_token="<|endoftext|>")
base = CLIPModel.from_pretrained(backbone, attn_implementation="sdpa").eval()
names = [f"a{at}" for at in range(count)]
model = PeftModel.from_pretrained(base, adapters / "peft-a0", adapter_name="a0")
for name in names[1:]:
    model.load_adapter(adapters / f"peft-{name}", adapter_name=name)
model.eval()
classes = [f"class {at}" for at in range(10)]
prompts = tokenizer([f"a photo of a {name}." for name in classes], padding=True, return_tensors="pt")
scale = base.logit_scale.exp()
text = {}
for name in names:
    model.set_adapter(name)
    features = base.get_text_features(input_ids=prompts.input_ids, attention_mask=prompts.attention_mask)
    text[name] = features / features.norm(dim=-1, keepdim=True)

app = FastAPI()
queue: asyncio.Queue = asyncio.Queue()
compute = ThreadPoolExecutor(1)
decode = ThreadPoolExecutor(2)
active = names[-1]


def pixels(body: bytes) -> torch.Tensor:
    return processor(Image.open(io.BytesIO(body)).convert("RGB"), return_tensors="pt").pixel_values


def answer(features: torch.Tensor, name: str) -> dict:
    features = features / features.norm(dim=-1, keepdim=True)
    scores = (scale * features @ text[name].T).softmax(-1)
    best = scores.topk(5)
    return {"model": name, "predictions": [{"label": classes[at], "score": score} for score, at in zip(best.values.tolist(), best.indices.tolist())]}


def switch(image: torch.Tensor, name: str) -> dict:
    global active
    if name != active:
        model.set_adapter(name)
        active = name
    return answer(base.get_image_features(pixel_values=image)[0], name)


def mixed(batch: list) -> list:
    images = torch.cat([image for image, _, _ in batch])
    # The wrapper's forward takes `adapter_names` and hands them to the layers by hooks.
    with model._enable_peft_forward_hooks(adapter_names=[name for _, name, _ in batch]):
        features = base.get_image_features(pixel_values=images)
    return [answer(feature, name) for feature, (_, name, _) in zip(features, batch)]


async def work() -> None:
    loop = asyncio.get_running_loop()
    while True:
        batch = [await queue.get()]
        while len(batch) < BATCH and not queue.empty():
            batch.append(queue.get_nowait())
        for (_, _, future), found in zip(batch, await loop.run_in_executor(compute, mixed, batch)):
            future.set_result(found)


@app.on_event("startup")
async def start() -> None:
    if mode == "mixed":
        app.state.worker = asyncio.create_task(work())


@app.get("/health")
async def health() -> dict:
    return {"status": "ok"}


@app.post("/v1/classify")
async def classify(request: Request, model: str) -> dict:
    loop = asyncio.get_running_loop()
    image = await loop.run_in_executor(decode, pixels, await request.body())
    if mode == "switch":
        return await loop.run_in_executor(compute, switch, image, model)
    future = loop.create_future()
    await queue.put((image, model, future))
    return await future


uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
