"""A real prediction door that draws nothing: each picture is the text of what reached it."""

# ruff: noqa: T201  (the server makes its log of what a door prints)

import os
from tempfile import mkdtemp
from typing import Optional

from cog import BasePredictor, Input, Path


class Predictor(BasePredictor):
    def setup(self, weights: Optional[Path] = None) -> None:
        self.weights = weights
        print("setup with", weights)
        if str(weights).endswith("broken.tar"):
            raise ValueError("broken.tar holds no weights")
        if str(weights).endswith("deadly.tar"):
            os._exit(3)

    def predict(
        self,
        prompt: str = Input(description="A text.", default="a photo"),
        num_outputs: int = Input(description="How many.", default=1, ge=1, le=4),
        image: Optional[Path] = Input(description="A picture.", default=None),
        behavior: str = Input(description="How.", default="draw", choices=["draw", "sketch"]),
    ) -> list[Path]:
        folder = Path(mkdtemp())
        pictures = [folder / f"out-{number}.png" for number in range(num_outputs)]
        for picture in pictures:
            picture.write_text(f"{behavior}|{prompt}|{self.weights}|{image and image.read_text()}")
        return [Path(picture) for picture in pictures]
