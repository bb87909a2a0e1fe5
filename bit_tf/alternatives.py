"""What BiT's layers are compared with: paper, section 4.3, tables 4 and 5.

    resnet_v2.build("R26x0.5", 10, norm=BatchNorm, convolution=PlainConv2D)

For comparisons within one process, on one device: the published layout, and so
states and `weights.npz`, is of BiT's own layers alone.
"""

import keras

from bit_tf import layers

# Of He et al.'s ResNet-v2 (arXiv 1603.05027), in Keras' sense of the word.
MOMENTUM = 0.9
EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="bit_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation, with moving averages where it does not train.

    On several devices each would normalise its own part of a batch, and
    remember its own averages.
    """

    def __init__(self, *, momentum=MOMENTUM, epsilon=EPSILON, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)


@keras.saving.register_keras_serializable(package="bit_tf")
class PlainConv2D(layers.StdConv2D):
    """The same convolution of a kernel that is not standardised."""

    standardizes = False
