"""A run's figures for people and for TensorBoard."""

from contextlib import closing

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from buttress.training.logs import Logs


def test_a_run_has_one_event_file_whatever_its_epochs(tmp_path):
    history = []
    with closing(Logs(tmp_path, 0)) as logs:
        for epoch in range(1, 4):
            history.append({"epoch": float(epoch), "loss": 1 / epoch})
            logs.write(history, 10 * epoch)
            # A run that is killed now has shown everything so far.
            board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
            assert [event.step for event in board.Scalars("loss")] == [10 * e for e in range(1, epoch + 1)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "epoch,loss"


def test_nothing_is_written_without_a_folder_or_before_the_first_row(tmp_path):
    with closing(Logs(None, 0)) as logs:
        logs.write([{"epoch": 1.0}], 1)
    with closing(Logs(tmp_path, 0)):
        pass
    assert list(tmp_path.iterdir()) == []
