"""Compare the fused attention kernel with plain matrix products, forward and backward, on this machine.

    python benchmarks/attention.py [--threads 1]

`crossgrain.nn.transformer.fused_attention_pays` rests on what this prints.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

SHAPES = {  # batch, heads, queries, keys, width of a head
    "small ViT": (72, 3, 65, 65, 64),
    "words": (120, 3, 24, 24, 64),
    "words to image": (360, 3, 24, 65, 64),
    "ViT-B/16": (4, 12, 197, 197, 64),
}


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T) v, step by step."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def milliseconds(attention, dtype: torch.dtype, shape: tuple[int, ...], repeats: int = 10) -> float:
    """Median time of a forward and backward pass from projections laid out as a layer makes them."""
    batch, heads, queries, keys, width = shape
    q, k, v = (torch.randn(batch, n, heads, width, dtype=dtype).requires_grad_() for n in (queries, keys, keys))
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        attention(*(x.transpose(1, 2) for x in (q, k, v))).sum().backward()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[2:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{'shape':15} {'precision':9} {'fused ms':>9} {'plain ms':>9} {'ratio':>6}")
    for dtype in (torch.float32, torch.bfloat16):
        for name, shape in SHAPES.items():
            fused = milliseconds(F.scaled_dot_product_attention, dtype, shape)
            stepwise = milliseconds(plain, dtype, shape)
            print(f"{name:15} {str(dtype)[6:]:9} {fused:9.2f} {stepwise:9.2f} {fused / stepwise:6.2f}")


if __name__ == "__main__":
    main()
