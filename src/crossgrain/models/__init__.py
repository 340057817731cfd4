"""Every model, by the name a recipe gives it (imported when a recipe asks for it)."""

MODELS: dict[str, type | str] = {"xvlm": "crossgrain.models.xvlm:XVLM"}
