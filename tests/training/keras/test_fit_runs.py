"""What a user meets around a named fit: interrupts, changes, more epochs, and what cannot be saved."""

from __future__ import annotations

import re

import pytest

from tests.training.conftest import Conversations


def test_an_interrupt_by_hand_is_one(held: Conversations) -> None:
    assert held["interrupted_by_hand"]["raised"] == "KeyboardInterrupt"
    assert held["interrupted_by_hand"]["outcome"] == "interrupted"


def test_an_interrupt_saves_the_step_it_came_in(held: Conversations) -> None:
    words = held["interrupted_by_hand"]["said"]
    assert re.fullmatch(r"haversack: hand: resumed at epoch 2, step 2; \d+ s repeated; nothing pending\n", words)


def test_the_handler_of_interrupts_is_put_back(held: Conversations) -> None:
    assert held["interrupted_by_hand"]["handler"] is True


def test_a_later_epoch_without_the_name_is_trained(held: Conversations) -> None:
    assert held["interrupted_by_hand"]["later"] == 1


def test_after_an_interrupt_the_same_process_goes_on_to_the_bit(held: Conversations) -> None:
    assert held["interrupted_equals_unbroken"] == {"same": True, "epochs": [0, 1, 2]}


def test_a_finished_run_says_so(held: Conversations) -> None:
    assert "grown: finished before" in held["more_epochs"]["again"]


def test_more_epochs_go_on_as_if_asked_for_at_once(held: Conversations) -> None:
    assert held["more_epochs"]["same"] is True


def test_fewer_epochs_than_were_reached_give_the_model_as_it_stands(held: Conversations) -> None:
    fewer = held["fewer_epochs"]
    assert fewer["said"] == (
        "haversack: fewer: trained beyond epochs=2 before, 2 epochs and 2 steps so far; its history and weights are "
        "loaded\n"
    )
    assert (fewer["same"], fewer["epochs"]) == (True, [0, 1])


def test_after_fewer_epochs_the_run_goes_on_where_it_was(held: Conversations) -> None:
    assert (held["fewer_epochs"]["sessions"], held["fewer_epochs"]["later"]) == (1, [0, 1, 2, 3])


def test_a_finished_run_is_loaded_into_a_new_model(held: Conversations) -> None:
    assert held["finished_in_another_model"] == {"same": True, "history": True}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("model", "began with another model: layers[1] Dense with other settings (units 3, now 5)"),
        ("optimizer", "began with another model: optimizer Adam, now SGD"),
        ("data", "began with other data: arrays[0] float32[40, 4] with other values"),
        ("rows", "arrays[0] float32[40, 4], now float32[30, 4]"),
        ("batch size", "batch_size 8, now 4"),
    ],
)
def test_a_change_is_explained(held: Conversations, what: str, words: str) -> None:
    assert held["changed"][what].startswith("TrainingError: The run changed began with ")
    assert words in held["changed"][what]
    assert "restart=True" in held["changed"][what]


def test_data_that_differs_by_rounding_is_the_same(held: Conversations) -> None:
    assert "resumed at epoch 4, step 0" in held["changed"]["rounding"]


def test_restart_begins_anew_and_keeps_the_old_run(held: Conversations) -> None:
    assert held["restarted"] == {"epochs": 3, "kept": True}


@pytest.mark.parametrize("store", ["restarted_in_another_store", "restarted_on_a_drive"])
def test_restart_keeps_the_old_run_in_another_store_and_never_finds_it_again(held: Conversations, store: str) -> None:
    assert (held[store]["kept"], held[store]["new"]) == (True, True)
    assert ": finished before" in held[store]["again"]


def test_a_cell_that_restarts_a_run_does_so_once_in_its_job(held: Conversations) -> None:
    assert "job: resumed at epoch 2, step 2;" in held["restarted_in_a_job"]["said"]
    assert held["restarted_in_a_job"]["kept"] == ["job.before-1", "job.before-2"]


def test_a_restart_of_nothing_keeps_nothing(held: Conversations) -> None:
    assert held["restarted_without_a_run"]["kept"] == []


def test_where_the_disk_goes_with_the_session_it_is_said_once(held: Conversations) -> None:
    words = held["where_the_disk_goes"]
    assert "which is lost with this machine's session; to resume in the next one, name a hub" in words["first"]
    assert (words["second"], words["told"]) == ("", "")


def test_a_new_machine_takes_the_run_from_the_store(held: Conversations) -> None:
    assert held["on_another_machine"]["same"] is True


def test_a_run_cut_off_before_its_first_save_writes_no_row_twice(held: Conversations) -> None:
    assert held["cut_off_before_the_first_save"]["appended"] == ["epoch", "0", "0", "1", "2"]
    assert held["cut_off_before_the_first_save"]["overwritten"] == ["epoch", "0", "1", "2"]


def test_a_generator_is_trained_plainly_and_it_says_why(held: Conversations) -> None:
    plain = held["sources_that_only_go_forward"]
    assert (
        "a generator cannot be asked for its 1,000th batch; use arrays or a keras.utils.PyDataset" in plain["generator"]
    )
    assert (plain["trained"], plain["saved"]) == (3, False)


def test_backup_and_restore_is_left_out(held: Conversations) -> None:
    assert held["left_out"]["said"].startswith("haversack: BackupAndRestore is left out")
    assert held["left_out"]["used"] is False


def test_without_a_name_nothing_is_saved(held: Conversations) -> None:
    assert held["without_a_name"]["saved"] is False


def test_sigterm_waits_for_a_save(held: Conversations) -> None:
    assert held["terminated"] == {"came": 1, "saved at": [0, 4]}


def test_moving_averages_can_be_trained_twice(held: Conversations) -> None:
    assert held["with_moving_averages_twice"]["losses"] == 3


def test_a_setting_changed_between_sessions_stays_changed(held: Conversations) -> None:
    assert held["settings_that_are_changed_between_sessions"] == {"patience": 7, "best": True}


def test_checkpoints_of_another_loop_are_not_taken(held: Conversations) -> None:
    assert "are not those of haversack.fit" in held["not_started_by_us"]["said"]


def test_a_training_goes_on_while_nothing_can_be_written(held: Conversations) -> None:
    full = held["nothing_can_be_written_for_a_while"]
    assert "The training continues, and the save is retried." in full["said"]
    assert (full["epochs"], full["saved"]) == (3, True)


def test_data_with_holes_is_saved_and_known_again(held: Conversations) -> None:
    holes = held["data_with_holes"]
    assert holes["said"].startswith("haversack: holes: weights or loss are NaN or infinite by epoch ")
    assert "haversack: holes: resumed at epoch 2, step 0;" in holes["resumed"]


def test_a_fit_in_a_thread_is_saved_too(held: Conversations) -> None:
    assert held["in_a_thread"]["epochs"] == [0, 1, 2]


def test_a_folder_that_cannot_be_written_is_said_at_once(held: Conversations) -> None:
    assert held["the_folder_is_refused"]["said"].startswith("TrainingError:")


def test_the_progress_is_keras_own(held: Conversations) -> None:
    assert held["progress"]["0"] == ""
    assert held["progress"]["2"].startswith("5/5 - ")
    assert "next save" not in held["progress"]["2"]


def test_the_bar_tells_when_the_next_save_is(held: Conversations) -> None:
    *running, last = held["progress"]["1"].split("\r")
    assert re.search(r" - loss: \S+ - next save: (\d+s|now)[\s\x08]*$", running[-1])
    assert "next save" not in last


def test_before_the_sessions_end_the_state_is_saved_once_more(held: Conversations) -> None:
    assert held["a_session_that_ends_soon"] == 2
