"""Every model, by the name a recipe gives it (imported when a recipe asks for it)."""

MODELS: dict[str, type | str] = {
    "imagebert": "crossgrain.models.imagebert:ImageBERT",
    "vlbert": "crossgrain.models.vlbert:VLBERT",
    "pixelbert": "crossgrain.models.pixelbert:PixelBERT",
    "xvlm": "crossgrain.models.xvlm:XVLM",
}
