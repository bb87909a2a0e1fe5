"""The flags of bit_tf.train. A hyper-parameter left out is the recipe's."""

from absl import flags

from bit_tf import execution
from bit_tf import hyperrule
from bit_tf import recipe as recipe_lib
from bit_tf import upstream

DEFAULT_MODEL = "BiT-M-R50x1"
# Where the published weights cannot be had, and for pre-training.
SMALL_MODEL = "R26x0.5"
MAX_INTEGER = 2**31 - 1

RANDOM_FLIP = flags.DEFINE_bool(
    "random_flip",
    True,
    "Mirror training images at random. Switch it off where left and right "
    "matter.",
)
RANDOM_CROP = flags.DEFINE_bool(
    "random_crop",
    True,
    "Cut training images at random. Switch it off where the place in the "
    "picture or the number of things matters.",
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory for everything the run leaves. One that was interrupted is "
    "continued.",
)
RECIPE = flags.DEFINE_enum(
    "recipe",
    "hyperrule",
    ["hyperrule", "upstream"],
    "hyperrule: the BiT-HyperRule, for fine-tuning. upstream: the paper's "
    "pre-training, see --upstream.",
)
UPSTREAM = flags.DEFINE_enum(
    "upstream",
    "BiT-S",
    list(upstream.UPSTREAMS),
    "With --recipe=upstream: whose epochs and loss.",
)
HYPERRULE = flags.DEFINE_enum(
    "hyperrule",
    "paper",
    list(hyperrule.READINGS),
    "Which reading of the HyperRule: the paper's, or that of the authors' "
    "code.",
)
MODEL = flags.DEFINE_string(
    "model",
    None,
    "Published weights, such as BiT-M-R50x1, which are fetched; or a network "
    "with fresh weights, R{26,50,101,152}x{width}, such as R26x0.5. Default: "
    f"{DEFAULT_MODEL}; where that cannot be fetched, and for "
    f"--recipe=upstream, {SMALL_MODEL}.",
)
INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Weights to start from, instead of those that --model names: a published "
    "name, or a file of any format that bit_tf.convert reads; a head for other "
    "classes is replaced.",
)
RESIZE = flags.DEFINE_integer(
    "resize",
    None,
    "Pixels. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
CROP = flags.DEFINE_integer(
    "crop",
    None,
    "Pixels. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Examples per step, over all devices. Default: the recipe decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
SCALE_WITH_BATCH = flags.DEFINE_bool(
    "scale_with_batch",
    False,
    "Scale learning rate and steps with --batch_size, so that as many "
    "examples are seen as the recipe says.",
)
BASE_LR = flags.DEFINE_float(
    "base_lr", None, "Learning rate. Default: the recipe decides."
)
TOTAL_STEPS = flags.DEFINE_integer(
    "total_steps",
    None,
    "Updates; warm-up and decay are stretched with them. Default: the recipe "
    "decides.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
WARMUP_STEPS = flags.DEFINE_integer(
    "warmup_steps",
    None,
    "Updates with a growing rate. Default: the recipe decides.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
MIXUP_ALPHA = flags.DEFINE_float(
    "mixup_alpha", None, "0 for no mixup. Default: the recipe decides."
)
LOSS = flags.DEFINE_enum(
    "loss",
    None,
    list(recipe_lib.LOSSES),
    "softmax for one label per image, sigmoid for several, squared for a "
    "number. Default: the recipe decides, or the labels.",
)
WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", None, "0 for none. Default: the recipe decides."
)
WEIGHT_DECAY_KIND = flags.DEFINE_enum(
    "weight_decay_kind",
    None,
    list(recipe_lib.WEIGHT_DECAYS),
    "l2: added to the gradient. decoupled: subtracted from the weight, along "
    "the schedule. Default: the recipe decides.",
)
WEIGHT_DECAY_ON = flags.DEFINE_enum(
    "weight_decay_on",
    None,
    list(recipe_lib.DECAYED),
    "Which weights decay. Default: the recipe decides.",
)
WEIGHT_DECAY_TO = flags.DEFINE_enum(
    "weight_decay_to",
    None,
    list(recipe_lib.DECAY_TARGETS),
    "Where decay pulls the weights: to zero, or to where they started. "
    "Default: the recipe decides.",
)
LABEL_SMOOTHING = flags.DEFINE_float(
    "label_smoothing",
    None,
    "Share of each label that is spread over all classes. Default: the recipe "
    "decides.",
)
CLASS_WEIGHTS = flags.DEFINE_enum(
    "class_weights",
    None,
    list(recipe_lib.CLASS_WEIGHTS),
    "How much more the examples of rare classes weigh: balanced, all classes "
    "alike; effective, less than that. Default: the recipe decides.",
)
DROPOUT = flags.DEFINE_float(
    "dropout",
    None,
    "Share of the pre-logits that is dropped in training. Default: the recipe "
    "decides.",
)
FREEZE = flags.DEFINE_list(
    "freeze",
    None,
    "Parts of the network that are not trained, of "
    f"{', '.join(recipe_lib.FREEZABLE)}; all is all but the head. Default: "
    "none.",
)
CLIP_NORM = flags.DEFINE_float(
    "clip_norm",
    None,
    "Shorten the gradient of the batch to this norm; 0 for never. Default: the "
    "recipe decides.",
)
EMA_DECAY = flags.DEFINE_float(
    "ema_decay",
    None,
    "Evaluate and save a moving average of the weights with this decay, such "
    "as 0.9999; 0 for none. Default: the recipe decides.",
)
HEAD_BIAS = flags.DEFINE_float(
    "head_bias",
    None,
    "Where the bias of a new head starts; big_vision pre-trains with -10 for "
    "--loss=sigmoid. Default: 0.",
)
INITIALIZER = flags.DEFINE_enum(
    "initializer",
    None,
    list(recipe_lib.INITIALIZERS),
    "Of fresh kernels. Default: the recipe decides.",
)
EXAMPLES_PER_CLASS = flags.DEFINE_integer(
    "examples_per_class",
    None,
    "Train on this many examples of each class. Default: all.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
FEWSHOT_SEED = flags.DEFINE_integer(
    "fewshot_seed",
    0,
    "Which of the few-shot subsets.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
FEWSHOT_ALLOW_MISSING = flags.DEFINE_bool(
    "fewshot_allow_missing",
    False,
    "Take what there is of a class with fewer than --examples_per_class.",
)
SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Of fresh weights, order and augmentation.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(execution.PRECISIONS),
    "What is computed in half precision; weights, statistics, logits and loss "
    "stay float32. Slow on CPUs.",
)
ACCUMULATE_STEPS = flags.DEFINE_integer(
    "accumulate_steps",
    None,
    "Parts in which each device computes its share of the batch, one after the "
    "other; the update is that of the whole. Default: as many as memory asks "
    "for.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
REMAT = flags.DEFINE_bool(
    "remat",
    False,
    "Compute the inner activations of every residual unit again in the "
    "backward pass: less memory, more time, the same numbers.",
)
STEPS_PER_CALL = flags.DEFINE_integer(
    "steps_per_call",
    None,
    "Updates between two looks of the host. Default: 1 on CPUs, 10 elsewhere.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
JIT_COMPILE = flags.DEFINE_bool(
    "jit_compile", False, "Let XLA compile forward and backward pass."
)
NAN_POLICY = flags.DEFINE_enum(
    "nan_policy",
    "stop",
    list(execution.NAN_POLICIES),
    "When loss or gradient is not finite: stop, or go back to the newest saved "
    "state and pass over the data since, three times at most.",
)
STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "Which devices train. auto: the TPU of --tpu, all workers if there are "
    "several, all GPUs of this machine, else the CPU.",
)
WORKER_HOSTS = flags.DEFINE_list(
    "worker_hosts",
    None,
    "host:port of every worker, the chief first; the same command is started "
    "on each. Default: TF_CONFIG, or what srun says.",
)
WORKER_INDEX = flags.DEFINE_integer(
    "worker_index",
    None,
    "Which of --worker_hosts this is, from 0.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
WORKER_TIMEOUT = flags.DEFINE_integer(
    "worker_timeout",
    45,
    "Seconds to wait for the other workers at the start.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
TPU = flags.DEFINE_string(
    "tpu", None, "Name of a TPU, or local for the one of this machine."
)
EVAL_EVERY = flags.DEFINE_integer(
    "eval_every",
    None,
    "Steps between evaluations. Default: up to ten in all, as long as they "
    "cost less than a tenth of the training.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every",
    None,
    "Steps between saved states. Default: every five minutes.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
KEEP_CHECKPOINTS = flags.DEFINE_integer(
    "keep_checkpoints",
    2,
    "How many of the newest saved states are kept.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
KEEP_CHECKPOINT_EVERY = flags.DEFINE_integer(
    "keep_checkpoint_every",
    None,
    "Save and keep for good the states of every so many steps. Default: none.",
    lower_bound=1,
    upper_bound=MAX_INTEGER,
)
EXPORT = flags.DEFINE_bool("export", True, "Write the SavedModel.")
