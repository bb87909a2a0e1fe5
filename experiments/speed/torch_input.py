"""The work of input.py by torchvision: resized in bytes, cut, mirrored.

A process of its own: TensorFlow and torch do not always bear each other. It is
given encoded images and what to do, pickled, and for each line that it reads
it times batches and prints the seconds an image takes.
"""

import pickle
import sys
import time
from collections.abc import Sequence

import torch
import torchvision
from torchvision.transforms import v2


class Images(torch.utils.data.Dataset):
    """Encoded JPEGs, again and again, as (3, crop, crop) uint8.

    Args:
        contents: the JPEGs.
        resize: side before the crop, pixels.
        crop: side after it.
    """

    def __init__(self, contents: Sequence[bytes], resize: int, crop: int):
        self.contents = [
            torch.frombuffer(bytearray(content), dtype=torch.uint8)
            for content in contents
        ]
        self.change = v2.Compose(
            [
                # As BiT's are.
                v2.Resize((resize, resize), antialias=False),
                v2.RandomCrop(crop),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> torch.Tensor:
        content = self.contents[index % len(self.contents)]
        rgb = torchvision.io.ImageReadMode.RGB
        return self.change(torchvision.io.decode_jpeg(content, mode=rgb))


def main() -> None:
    given = pickle.load(sys.stdin.buffer)
    loader = torch.utils.data.DataLoader(
        Images(given["contents"], given["resize"], given["crop"]),
        batch_size=given["batch_size"],
        num_workers=torch.multiprocessing.cpu_count(),
    )
    for _ in sys.stdin.buffer:
        batches = iter(loader)
        # What is prepared ahead is not timed.
        for _ in range(given["ahead"]):
            next(batches)
        done, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < given["seconds"]:
            done += len(next(batches))
        print(spent / done, flush=True)
        # Its processes end.
        del batches


if __name__ == "__main__":
    main()
