"""The flags that say which model is asked, and how."""

from absl import flags

from bit_tf import program

MODEL = flags.DEFINE_string(
    "model",
    None,
    "Workdir of a run, SavedModel directory, weights file, or published name "
    "such as BiT-M-R50x1-ILSVRC2012.",
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side that images are resized to, pixels. Default: the model's.",
    lower_bound=1,
    upper_bound=2**15,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Images at once.", lower_bound=1, upper_bound=2**15
)
program.define_trust_saved_model()
program.define_mirror()
