"""Image encoders that read pixels, built on timm: Swin, and ViT in its DeiT and CLIP forms.

An image is encoded once for all the visual concepts (objects, regions, the image itself) that texts speak about:
`VisionEncoder` turns `Pixels` into `Concepts`.

Shape letters: I images, B concepts, U distinct patch encodings, P patches, N = 1 + P, W width.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer import checkpoint_filter_fn as convert_swin
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as convert_vit
from torch import Tensor, nn

from crossgrain.config import Count, Share, UserError, configclass
from crossgrain.data.types import Pixels
from crossgrain.nn.boxes import patches_inside
from crossgrain.nn.pixels import Normalise
from crossgrain.nn.rows import take_rows
from crossgrain.nn.transformer import fused_attention_pays, run_layers
from crossgrain.nn.weights import read_vision_weights


class Concepts(NamedTuple):
    """Visual concepts whose patch encodings are shared where they can be.

    Concept b is the sequence [cls[b]; patches[row[b]]], of which `mask[b]` may be attended to. The first I rows of
    `patches` are the whole images, and `cls_whole` their summaries.
    """

    cls: Float[Tensor, "B W"]
    patches: Float[Tensor, "U P W"]
    row: Int[Tensor, " B"]
    mask: Bool[Tensor, "B N"]
    image: Int[Tensor, " B"]
    cls_whole: Float[Tensor, "I W"]

    def take(self, rows: Int[Tensor, " K"]) -> "Concepts":
        """These concepts, of the same images."""
        cls, row, mask, image = (x.index_select(0, rows) for x in (self.cls, self.row, self.mask, self.image))
        return Concepts(cls, self.patches, row, mask, image, self.cls_whole)


class VisionEncoder(nn.Module):
    """Pixels to concepts. Subclasses say how a part of an image is summarised."""

    dim: int  # W
    grid: tuple[int, int]  # patches along height and width
    checkpointing: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise("clip")  # every encoder of X-VLM, Swin too (dataset/__init__.py:19)

    def read(self, pixels: Tensor) -> Tensor:
        """uint8 pixels to normalised floats (float pixels are normalised already), and timm's attention made ready."""
        device = pixels.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.normalise.mean.dtype
        fused = fused_attention_pays(pixels.device, dtype)
        for module in self.modules():
            if getattr(module, "fused_attn", fused) != fused:
                module.fused_attn = fused  # type: ignore[assignment]
        return self.normalise(pixels)

    def masks(self, pixels: Pixels) -> Bool[Tensor, "B N"]:
        """The tokens of each concept: its summary always, and the patches that its box touches."""
        inside = patches_inside(pixels.boxes, self.grid)
        return torch.cat([inside.new_ones(len(inside), 1), inside], dim=1)


class Swin(VisionEncoder):
    """Swin Transformer (Liu et al., 2021), whose summary is a mean of patches.

    A region is the mean of the patches inside its box, with all patches kept and those outside hidden from
    cross-attention by the mask; the patches themselves are not encoded again (swin_transformer.py:562-584).
    """

    @configclass
    class Config:
        image_size: Count = 224
        patch_size: Count = 4
        embed_dim: Count = 128
        depths: tuple[Count, ...] = (2, 2, 18, 2)
        num_heads: tuple[Count, ...] = (4, 8, 16, 32)
        window_size: Count = 7
        drop_path: Share = 0.1
        # Swin's `ape`, off as published: deep Swin learns from its borders where a patch is, a shallow one cannot.
        absolute_position: bool = False
        weights: str | None = (
            None  # timm's name (`swin_base_patch4_window7_224.ms_in22k`) or a file; None: from scratch
        )

        def __post_init__(self) -> None:
            stride = self.patch_size * 2 ** (len(self.depths) - 1)
            if self.image_size % stride:
                raise ValueError(f"image_size {self.image_size} is not a multiple of Swin's stride {stride}")
            if len(self.depths) != len(self.num_heads):
                raise ValueError(f"{len(self.depths)} depths but {len(self.num_heads)} num_heads")
            widths = [self.embed_dim * 2**stage for stage in range(len(self.depths))]
            if any(width % heads for width, heads in zip(widths, self.num_heads, strict=True)):
                raise ValueError(f"widths {widths} are not multiples of num_heads {list(self.num_heads)}")

    def __init__(self, config: Config):
        super().__init__()
        c = config
        self.config = c
        self.body = SwinTransformer(
            img_size=c.image_size,
            patch_size=c.patch_size,
            embed_dim=c.embed_dim,
            depths=c.depths,
            num_heads=c.num_heads,
            window_size=c.window_size,
            drop_path_rate=c.drop_path,
            num_classes=0,
            weight_init="jax",
        )
        self.dim = self.body.num_features
        self.position = None
        if c.absolute_position:
            cells = c.image_size // c.patch_size
            waves = build_sincos2d_pos_embed([cells, cells], dim=c.embed_dim, temperature=100.0)
            self.position = nn.Parameter(waves.reshape(cells, cells, c.embed_dim))
        side = c.image_size // (c.patch_size * 2 ** (len(c.depths) - 1))
        self.grid = (side, side)
        if c.weights is not None:
            load_encoder(self.body, c.weights, convert_swin)

    def forward(self, pixels: Pixels) -> Concepts:
        self.body.set_grad_checkpointing(self.checkpointing)
        x = self.body.patch_embed(self.read(pixels.pixels))  # (I, rows, columns, embed_dim)
        if self.position is not None:
            x = x + self.position
        patches = self.body.norm(self.body.layers(x)).flatten(1, 2)  # (I, P, W)
        cls_whole, mask = patches.mean(1), self.masks(pixels)
        # The mean over the patches of each box, as one small matrix product per image.
        share = mask[:, 1:].to(patches.dtype)
        share = share / share.sum(1, keepdim=True)
        cls = torch.einsum("bp,bpw->bw", share, take_rows(patches, pixels.image))
        return Concepts(cls, patches, pixels.image, mask, pixels.image, cls_whole)


class ViT(VisionEncoder):
    """Vision Transformer (Dosovitskiy et al., 2021), in the form of DeiT or of CLIP.

    The last `local_attention_depth` layers run once more for each region, from the image's own tokens, with the patches
    outside its box hidden (vit.py:177-219, clip_vit.py:278-306).
    """

    @configclass
    class Config:
        image_size: Count = 224
        patch_size: Count = 16
        dim: Count = 768
        depth: Count = 12
        num_heads: Count = 12
        mlp_ratio: float = 4.0
        local_attention_depth: int = 4
        form: Literal["deit", "clip"] = "deit"
        drop_path: Share = 0.0
        weights: str | None = None  # timm's name (`deit_base_patch16_224.fb_in1k`) or a file; None: from scratch

        def __post_init__(self) -> None:
            if self.image_size % self.patch_size:
                raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
            if not 0 <= self.local_attention_depth <= self.depth:
                raise ValueError(f"local_attention_depth {self.local_attention_depth} is not within 0 to {self.depth}")
            if self.dim % self.num_heads:
                raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")

    def __init__(self, config: Config):
        super().__init__()
        c = config
        self.config = c
        clip: dict[str, Any] = {"pre_norm": True, "act_layer": "quick_gelu", "norm_layer": nn.LayerNorm}
        deit: dict[str, Any] = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
        self.body = VisionTransformer(
            img_size=c.image_size,
            patch_size=c.patch_size,
            embed_dim=c.dim,
            depth=c.depth,
            num_heads=c.num_heads,
            mlp_ratio=c.mlp_ratio,
            drop_path_rate=c.drop_path,
            num_classes=0,
            global_pool="",
            weight_init="jax",
            **(clip if c.form == "clip" else deit),
        )
        self.dim = c.dim
        side = c.image_size // c.patch_size
        self.grid = (side, side)
        if c.weights is not None:
            load_encoder(self.body, c.weights, convert_vit)

    def forward(self, pixels: Pixels) -> Concepts:
        body, mask = self.body, self.masks(pixels)
        x = body.norm_pre(body._pos_embed(body.patch_embed(self.read(pixels.pixels))))  # (I, 1+P, W)
        shared = self.config.depth - self.config.local_attention_depth
        x = run_layers(body.blocks[:shared], x, checkpoint=self.checkpointing)
        num_images = len(x)
        # Concepts that may be regions go through the last layers a second time, with the images in one batch.
        regions = pixels.region_rows()
        local = None if len(regions) == 0 or self.config.local_attention_depth == 0 else regions
        attention_mask = None
        if local is not None:
            x = torch.cat([x, x.index_select(0, pixels.image.index_select(0, local))])
            attention_mask = torch.cat([mask.new_ones(num_images, mask.shape[1]), mask.index_select(0, local)])
            # Every query has a row of its own: attention kernels differ in how far they broadcast a mask.
            attention_mask = attention_mask[:, None, None, :]
        x = run_layers(body.blocks[shared:], x, attention_mask, checkpoint=self.checkpointing)
        x = body.norm(x)
        row = pixels.image
        if local is not None:
            row = row.index_copy(0, local, torch.arange(num_images, len(x), device=row.device, dtype=row.dtype))
        return Concepts(x[:, 0].index_select(0, row), x[:, 1:], row, mask, pixels.image, x[:num_images, 0])


def load_encoder(body: nn.Module, weights: str, convert: Any) -> None:
    """Load published weights, by timm's name or from a file, into a timm module; every tensor must find its place."""
    published = read_vision_weights(weights)
    try:
        state = {name: value for name, value in convert(published, body).items() if not name.startswith("head.")}
        result = body.load_state_dict(state, strict=False)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, ValueError) as error:  # shapes of another size
        raise UserError(f"{weights} does not fit this encoder: {' '.join(str(error).split())[:300]}") from None
    if result.missing_keys or result.unexpected_keys:
        missing, unexpected = sorted(result.missing_keys), sorted(result.unexpected_keys)
        raise UserError(f"{weights} does not fit this encoder: missing {missing[:5]}, unexpected {unexpected[:5]}")


VISION_ENCODERS = {"swin": Swin, "vit": ViT}
