"""The flags of bit_tf.train. A hyper-parameter left out is the recipe's."""

from absl import flags

from bit_tf import execution
from bit_tf import upstream
from bit_tf import zoo

DEFAULT_MODEL = "BiT-M-R50x1"
# For pre-training.
SMALL_MODEL = "R26x0.5"
MAX_INTEGER = 2**31 - 1

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
MODEL = flags.DEFINE_string(
    "model",
    None,
    "Published weights, such as BiT-M-R50x1, which are fetched; the small "
    f"{zoo.SHIPPED}, which the package brings; or a network with fresh "
    "weights, R{26,50,101,152}x{width}, such as R26x0.5. Default: "
    f"{DEFAULT_MODEL}; {zoo.SHIPPED} where that cannot be fetched; "
    f"{SMALL_MODEL} for --recipe=upstream.",
)
INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Weights to start from, instead of those that --model names: a published "
    "name, or a file of any format that bit_tf.convert reads; a head for other "
    "classes is replaced.",
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
CACHE_MB = flags.DEFINE_integer(
    "cache_mb",
    0,
    "Keep the images in memory, decoded and resized, if they take no more "
    "millions of bytes than this: where training waits for images.",
    lower_bound=0,
    upper_bound=MAX_INTEGER,
)
BESIDE = flags.DEFINE_list(
    "beside",
    [],
    "Workdirs of runs on the same images, to be put beside this one in its "
    "report. NAME=WORKDIR gives one a name.",
)
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic",
    False,
    "Choose only operations that give the same bits every time, as those of "
    "CPUs do anyway, and leave what a clock says out of metrics.jsonl: the "
    "same command twice then leaves that file, weights.npz and "
    "evaluation.json alike. Slower on GPUs.",
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
