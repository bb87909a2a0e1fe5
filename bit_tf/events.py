"""The rows of a run as TensorBoard events."""

import pathlib

import tensorflow as tf


class Events:
    """Writes rows of numbers as TensorBoard scalars.

    With the bare summary op: tf.summary.scalar wants the tensorboard package,
    which only the viewer needs.

    Args:
        path: the directory to give to tensorboard --logdir.
    """

    def __init__(self, path: pathlib.Path):
        self._writer = tf.summary.create_file_writer(str(path))
        self._metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(
                plugin_name="scalars"
            )
        )

    def write(self, row: dict) -> None:
        """Writes every number of a row under its name, at row["step"].

        Raises:
            OSError: the disk.
        """
        try:
            self._write(row)
        except tf.errors.OpError as error:
            raise OSError(f"TensorBoard: {error.message}") from error

    def _write(self, row: dict) -> None:
        with self._writer.as_default():
            for name, value in row.items():
                # A ratio without a denominator is no number.
                if name == "step" or value is None:
                    continue
                tf.summary.write(
                    name,
                    tf.constant(value, tf.float32),
                    step=row["step"],
                    metadata=self._metadata,
                )
        self._writer.flush()
