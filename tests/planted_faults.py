"""Faults that public code has had, each planted into a copy of this project and caught by a test.

`python tests/planted_faults.py` plants them one at a time (all, or those whose names hold a given
word) and runs the test that must fail; `tests/test_planted_faults.py` holds the list against the
code. tests/README.md has it as a table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """name: what is wrong; file: where; right, wrong: the text that is replaced, found once.

    caught_by: a file of tests, or one test of it, that must fail.
    """

    name: str
    file: str
    right: str
    wrong: str
    caught_by: str


FAULTS = [
    Fault(
        "mask applied before the optimizer's step",
        "lth_core/train/loop.py",
        "take_step(masking.before_step(step, self.optimizer))\n            masking.after_step()",
        "taken = masking.before_step(step, self.optimizer)\n            masking.after_step()\n"
        "            take_step(taken)",
        "tests/core/train/test_loop.py",
    ),
    Fault(
        "rewind to k+1",
        "lth_core/train/loop.py",
        "if step in self.task.keep:\n            self.points[step] =",
        "if step - 1 in self.task.keep:\n            self.points[step - 1] =",
        "tests/core/train/test_loop.py",
    ),
    Fault(
        "batch norm's buffers not rewound",
        "lth_core/train/loop.py",
        "return cpu_copies(layers.state_of(model))",
        "return cpu_copies(layers.state_of(model)) | {\n"
        "        name: torch.zeros_like(value) for name, value in model.named_buffers()\n    }",
        "tests/core/train/test_loop.py",
    ),
    Fault(
        "schedule shifted by one at rewind",
        "lth_core/train/loop.py",
        "set_rate(self.optimizer, learning_rate(spec, step))",
        "set_rate(self.optimizer, learning_rate(spec, step - (self.task.first > 0)))",
        "tests/core/train/test_loop.py",
    ),
    Fault(
        "reinit with the same draw at every level",
        "lth_core/jobs/branches.py",
        'draw=("reinit", job.level)',
        'draw=("reinit", 0)',
        "tests/core/jobs",
    ),
    Fault(
        "floor of k",
        "lth_core/prune/select.py",
        "keep = min(total - round(pruned * total)",
        "keep = min(total - int(pruned * total)",
        "tests/core/prune/test_prune.py",
    ),
    Fault(
        "ties by index",
        "lth_core/prune/top_k.py",
        "drawn = torch.randperm(len(tied), generator=generator)[",
        "drawn = torch.arange(len(tied))[",
        "tests/core/prune/test_top_k.py",
    ),
    Fault(
        "momentum kept on regrown weights",
        "lth_core/train/masking/dynamic.py",
        "value.masked_fill_(where, 0)",
        "value.masked_fill_(where & False, 0)",
        "tests/core/train/test_regrowth.py",
    ),
    Fault(
        "a weight dropped and grown by one change starts at 0",
        "lth_core/train/masking/dynamic.py",
        "grown & ~self.mask[name], optimizer",
        "grown, optimizer",
        "tests/core/train/test_regrowth.py",
    ),
    Fault(
        "pruned weights revived by momentum: no mask after the step",
        "lth_core/train/masking/base.py",
        "if self._weights:\n            torch._foreach_mul_(self._weights, self._masks)",
        "if self._weights and False:\n            torch._foreach_mul_(self._weights, self._masks)",
        "tests/core/train/test_loop.py",
    ),
    Fault(
        "validation images in training",
        "lth_core/data/dataset.py",
        "examples = raw.train.at(order[first : first + train].sort().values)",
        "examples = raw.train.at(order[: first + train].sort().values)",
        "tests/core/data/test_data.py",
    ),
    Fault(
        "validation loss taken from the test set",
        "lth_core/train/evaluate.py",
        "evaluate(model, data, data.validation)",
        "evaluate(model, data, data.test)",
        "tests/core/train/test_splits.py",
    ),
    Fault(
        "a barrier's batch norm statistics from test images",
        "lth_core/train/evaluate.py",
        "for x in data.train.x.tensor_split(max(1, len(data.train) // STATISTICS_BATCH)):",
        "for x in data.test.x.tensor_split(max(1, len(data.test) // STATISTICS_BATCH)):",
        "tests/core/train/test_splits.py",
    ),
    Fault(
        "early stop of a shrinking mask before its final density",
        "lth_core/spec/prune.py",
        "return steps_in(self.end) + 1 if self.shrinks else 0",
        "return 0",
        "tests/core/train/test_gmp.py",
    ),
    Fault(
        "controls of untrained masks with the initialization's batch norm statistics",
        "lth_core/jobs/branches.py",
        "return replace(made, start=WithStatistics(of=made.start))",
        "return made",
        "tests/core/train/test_learned.py",
    ),
    Fault(
        "a score that gets the initial weights themselves",
        "lth_core/train/builder.py",
        "initial={name: initial[name].clone() for name in mask},",
        "initial={name: initial[name] for name in mask},",
        "tests/core/jobs/test_jobs.py",
    ),
    Fault(
        "normalization of CIFAR-10 as of CIFAR-100",
        "lth_core/data/sources.py",
        "(0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)",
        "(0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)",
        "tests/core/data/test_normalization.py",
    ),
    Fault(
        "normalization of CIFAR-100 as of CIFAR-10",
        "lth_core/data/sources.py",
        "(0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)",
        "(0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)",
        "tests/core/data/test_normalization.py",
    ),
    Fault(
        "normalization of SVHN as of CIFAR-10",
        "lth_core/data/sources.py",
        "(0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)",
        "(0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)",
        "tests/core/data/test_normalization.py",
    ),
    Fault(
        "per-image deviation over N - 1",
        "lth_core/data/dataset.py",
        "correction=0, keepdim=True",
        "correction=1, keepdim=True",
        "tests/core/data/test_normalization.py",
    ),
    Fault(
        "batch norm's scales drawn before the weights",
        "lth_core/models/__init__.py",
        "    initialize(model, spec.init, generator)\n",
        "    initialize_norms(model, spec, generator)\n"
        "    initialize(model, spec.init, generator)\n",
        "tests/core/models/test_models.py",
    ),
    Fault(
        "FLOPs of a strided convolution as of stride 1",
        "lth_core/models/positions.py",
        "yield module.weight, output.numel() // module.weight.shape[0]",
        "yield module.weight, arguments[0][0, 0].numel() if output.dim() == 4 else output.shape[-1]",
        "tests/core/models/test_layers.py",
    ),
    Fault(
        "random mask counted globally",
        "lth_core/jobs/controls.py",
        "chosen[name] = places < kept.sum()",
        "chosen[name] = torch.rand(kept.shape) < (\n"
        "                sum(int(m.sum()) for m in mask.values())\n"
        "                / sum(m.numel() for m in mask.values()))",
        "tests/core/jobs/test_controls.py",
    ),
    Fault(
        "barrier in training mode",
        "lth_core/train/evaluate.py",
        "    model.eval()\n    device",
        "    model.train()\n    device",
        "tests/core/train/test_splits.py",
    ),
    Fault(
        "lr_rewind with the rewound weights",
        "lth_core/jobs/branches.py",
        "return replace(job, start=previous, mask=replace(job.mask, of=previous))",
        "return replace(job, mask=replace(job.mask, of=previous))",
        "tests/core/jobs/test_retrained.py",
    ),
    Fault(
        "a rewound twin compared with a run that keeps its optimizer's state",
        "lth_core/results.py",
        'jobs.get("ticket") or jobs.get("rewound") or jobs["dense"]',
        'jobs.get("ticket") or jobs["dense"]',
        "tests/core/jobs/test_twins.py",
    ),
    Fault(
        "restarted schedule goes on from the rewind point",
        "lth_core/lottery.py",
        "first = 0 if spec.restart_schedule else rewind",
        "first = rewind",
        "tests/core/jobs/test_restart.py",
    ),
    Fault(
        "milestone passed within the warm-up",
        "lth_core/spec/train.py",
        "if steps_in(milestone, steps_per_epoch, steps) < warmup:",
        "if steps_in(milestone, steps_per_epoch, steps) < 0:",
        "tests/core/spec/test_spec.py",
    ),
    Fault(
        "unpaired t-test",
        "lth_core/analysis/verdict.py",
        "value - others[seed] for seed",
        "value - others[min(others)] for seed",
        "tests/core/analysis/test_verdict.py",
    ),
    Fault(
        "GMP's progress off by one",
        "lth_core/train/masking/gradual.py",
        "progress = (step - self.begin) / (self.end - self.begin)",
        "progress = (step - self.begin) / (self.end - self.begin + 1)",
        "tests/core/train/test_gmp.py",
    ),
    Fault(
        "RigL's share without the half",
        "lth_core/train/masking/dynamic.py",
        "share = self.spec.swap * (1 + cos(pi * progress)) / 2",
        "share = self.spec.swap * (1 + cos(pi * progress))",
        "tests/core/train/test_regrowth.py",
    ),
    Fault(
        "ERK without the kernel",
        "lth_core/prune/scope.py",
        "sum(shape) / (1 if structure",
        "sum(shape[:2]) / (1 if structure",
        "tests/core/prune/test_shares.py",
    ),
    Fault(
        "edge-popup by raw score",
        "lth_core/train/masking/edge_popup.py",
        "return score.abs()",
        "return score",
        "tests/core/train/test_learned.py",
    ),
    Fault(
        "dropout within a user's own code while scores are taken",
        "lth_core/prune/network.py",
        "            train_norms_alone(model)",
        "            model.train()",
        "tests/core/prune/test_snip.py",
    ),
    Fault(
        "SynFlow with the biases of an LSTM",
        "lth_core/prune/synflow.py",
        'if "bias" in own_name or',
        'if own_name.endswith("bias") or',
        "tests/core/prune/test_synflow.py",
    ),
    Fault(
        "curvature by the first eigenvalue that seems settled",
        "lth_core/measures/predictors.py",
        "if max(sizes + errors) <= (1 + ACCURACY) * max(sizes):",
        "if len(diagonal) == 2:",
        "tests/core/measures/test_predictors.py",
    ),
    Fault(
        "an LSTM's weights moved out of its stack on a GPU",
        "lth_core/train/pack/stack.py",
        "            _keep_in_place(model)",
        "            model.train()",
        "tests/gpu/test_gpu_networks.py",
    ),
    Fault(
        "a verdict on the seeds that a stop rule left",
        "lth_core/analysis/verdict.py",
        "return self.n >= FEWEST and self.reached_by_all",
        "return self.n >= FEWEST",
        "tests/core/analysis",
    ),
    Fault(
        "a level's larger variance drawn to that of the others",
        "lth_core/analysis/paired.py",
        "max(square, weight * usual + (1 - weight) * square)",
        "weight * usual + (1 - weight) * square",
        "tests/core/analysis/test_verdict_rates.py",
    ),
    Fault(
        "MLflow: one state for all trials of a pack",
        "tracking/publish/background.py",
        "if level.level == 0 or run.key not in self._trials:",
        "if level.level == 0 or run.key not in self._trials:\n            self._trials.clear()",
        "tests/tracking/publish/test_background.py",
    ),
    Fault(
        "a swap of SET in place of the optimizer's step",
        "lth_core/train/masking/dynamic.py",
        "        self._due = step, optimizer\n        return True",
        "        return super().before_step(step, optimizer)",
        "tests/core/train/test_regrowth.py",
    ),
    Fault(
        "a notebook's redefined network taken for the one before",
        "lth_core/resolve/pins.py",
        "for cached in (pin_data, evaluated_examples, pin_model):",
        "for cached in (pin_data, evaluated_examples):",
        "tests/core/test_own_code.py",
    ),
    Fault(
        "test logits that are no numbers counted as class 0",
        "lth_core/train/evaluate.py",
        '        _check_finite({"test": test[0]}, step)',
        "        pass",
        "tests/core/train/test_evaluate.py",
    ),
    Fault(
        "GraSP without temperature",
        "lth_core/prune/grasp.py",
        "cross_entropy(model(x) / network.spec.temperature, y)",
        "cross_entropy(model(x), y)",
        "tests/core/prune/test_grasp.py",
    ),
    Fault(
        "keys of stored JSON sorted, so that the last layer is the alphabet's",
        "lth_core/store/store.py",
        '_ENCODER = json.JSONEncoder(separators=(",", ":")',
        '_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":")',
        "tests/core/store/test_store.py",
    ),
    Fault(
        "axis values of an earlier sweep in the records of an extended study",
        "sweeps/store/records.py",
        "        with_axis_values(row, trial)\n        for trial, content",
        "        row\n        for trial, content",
        "tests/sweeps/store/test_records.py",
    ),
    Fault(
        "a constant channel removed, and its value added to no bias",
        "lth_core/models/compact.py",
        "module.bias.data += change",
        "pass",
        "tests/core/models/test_compact.py",
    ),
    Fault(
        "a constant channel folded into a convolution that pads with zeros",
        "lth_core/models/compact.py",
        "(value == 0) | (not zeros)",
        "torch.ones_like(value, dtype=torch.bool)",
        "tests/core/models/test_compact.py",
    ),
    Fault(
        "a mask within a budget of milliseconds measured again, and so another, in each process",
        "lth_core/train/archive.py",
        "yield make({**(known or {})})",
        "yield make({})",
        "tests/core/prune/test_latency_budget.py",
    ),
    Fault(
        "latencies of two machines in one table",
        "sweeps/store/latencies.py",
        ' and each["device"] == device',
        "",
        "tests/sweeps/store/test_latencies.py",
    ),
    Fault(
        "gates before batch norm",
        "lth_core/models/gates.py",
        "norm.register_forward_hook(_multiply)",
        "norm.register_forward_pre_hook(\n"
        "            lambda norm, arguments: (_multiply(norm, arguments, arguments[0]),))",
        "tests/core/models/test_gates.py",
    ),
    Fault(
        "gates not clamped",
        "lth_core/train/masking/gates.py",
        "gate.clamp_(0, 1)",
        "gate.clamp_(-1e9, 1e9)",
        "tests/core/train/test_gate_training.py",
    ),
    Fault(
        "gates chosen by test accuracy",
        "lth_core/train/loop.py",
        "curves.validation_accuracy[-1] if measured",
        "curves.test_accuracy[-1] if measured",
        "tests/core/train/test_gate_training.py",
    ),
    Fault(
        "budget of the expanded network",
        "lth_core/prune/budget.py",
        "        whole = (costs.whole or costs).of(kind, {})",
        "        whole = costs.of(kind, {})",
        "tests/core/prune/test_budget.py",
    ),
    Fault(
        "budget of a level as of the first",
        "lth_core/prune/budget.py",
        "else limit**level for",
        "else limit for",
        "tests/core/prune/test_budget.py",
    ),
    Fault(
        "Taylor over weights behind batch norm, where it is 0",
        "lth_core/prune/channel_scores.py",
        "for part in normed or produced:",
        "for part in produced:",
        "tests/core/prune/test_channel_scores.py",
    ),
    Fault(
        "pack: no mask after the step",
        "lth_core/train/pack/stack.py",
        "weight.mul_(mask)",
        "weight.mul_(mask.clamp(min=1))",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "pack: all runs on the first one's batches",
        "lth_core/train/pack/stack.py",
        "task.order.epoch(epoch) for task in self._tasks",
        "order.epoch(epoch) for task in self._tasks",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "pack: one dropout stream for all runs",
        "lth_core/train/pack/stack.py",
        "(task.order.seed, task.order.run) for task in self._tasks",
        "(order.seed, order.run) for order in [self._tasks[0].order] * len(self._tasks)",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "pack: one count of Adam's steps for runs that join later",
        "lth_core/train/pack/stack.py",
        'and (len(taken) == 1 or runs[0].task.spec.optimizer == "sgd")',
        "and len(taken) > 0",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "pack: a fresh optimizer where its runs change",
        "lth_core/train/pack/stack.py",
        "if state.get(name) is None else state[name]",
        "",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "pack: the first run's labels for all",
        "lth_core/train/pack/stack.py",
        "y[own] for y, own in zip(labels, index, strict=True)",
        "labels[0][own] for own in index",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "pack: a checkpoint of a run that diverged",
        "lth_core/train/pack/runner.py",
        " and position not in pack.errors",
        "",
        "tests/core/train/pack/test_runner.py",
    ),
    Fault(
        "pack: a rewind point trained again before the run that passes it",
        "lth_core/train/pack/rules.py",
        "return replace(job, last=job.first).digest",
        "return job.digest",
        "tests/core/train/pack/test_rules.py",
    ),
    Fault(
        "pack: one example's gradients by torch's own grouped convolution",
        "lth_core/train/pack/forward.py",
        "if x.shape[1] == 1 and not x.is_cuda:",
        "if False:",
        "tests/core/train/pack/test_pack.py",
    ),
    Fault(
        "weights shuffled in place in what the trainer keeps",
        "lth_core/jobs/controls.py",
        "            state[name] = state[name].clone()\n",
        "",
        "tests/core/jobs/test_read_only_states.py",
    ),
    Fault(
        "given ticket written into the initial weights that the trainer keeps",
        "lth_core/jobs/transfer.py",
        "        return {name: value(name, t) for name, t in self.fresh.make(context, job).items()}",
        "        state = self.fresh.make(context, job)\n"
        "        state.update({name: value(name, t) for name, t in state.items()})\n"
        "        return state",
        "tests/core/jobs/test_transfer.py",
    ),
    Fault(
        "pack: a run without finite scores ends the others",
        "lth_core/train/pack/stack.py",
        "self.errors[number] = error",
        "raise",
        "tests/core/train/pack/test_runner.py",
    ),
    Fault(
        "linear chain: ReLU left out of the backward pass",
        "lth_core/train/layers/chain.py",
        "(aten.threshold_backward(slope, y, 0), {})",
        "(slope, {})",
        "tests/core/train/layers/test_chain.py",
    ),
    Fault(
        "linear chain: dropout left out of the backward pass",
        "lth_core/train/layers/chain.py",
        "(slope / share * kept, {})",
        "(slope, {})",
        "tests/core/train/layers/test_chain.py",
    ),
    Fault(
        "pack: the level after the one at which a trial stops",
        "sweeps/run/worker.py",
        "planned[trial.id][level:][:least]",
        "planned[trial.id][level:]",
        "tests/sweeps/run/test_packs.py",
    ),
    Fault(
        "pack: a level that is trained ahead before its mask's training",
        "lth_core/train/trainer.py",
        "inputs(job) <= self._stored_runs and",
        "",
        "tests/core/train/pack/test_rules.py",
    ),
    Fault(
        "pack: one number of kept weights for all levels",
        "lth_core/train/masking/edge_popup.py",
        "member.quotas[number][1] for member in members",
        "members[0].quotas[number][1] for member in members",
        "tests/core/train/pack/test_learned_stack.py",
    ),
    Fault(
        "a claim that a failing store kept is waited for by its own process",
        "lth_core/store/locks.py",
        "has_ended(other) or _is_left(other) or waited",
        "has_ended(other) or waited",
        "tests/core/store/test_locks.py",
    ),
    Fault(
        "normalization left on the CPU",
        "lth_core/data/dataset.py",
        "mean=self.mean.to(device),",
        "mean=self.mean,",
        "tests/gpu/test_gpu_data.py",
    ),
    Fault(
        "positions of a crop made on the CPU",
        "lth_core/data/augment.py",
        "torch.arange(width, device=x.device)",
        "torch.arange(width)",
        "tests/gpu/test_gpu_data.py",
    ),
    Fault(
        "a mask left on the CPU",
        "lth_core/train/masking/base.py",
        "torch.empty_like(w).copy_(mask[n])",
        "mask[n].to(w.dtype)",
        "tests/gpu/test_gpu_maskings.py",
    ),
    Fault(
        "a learned mask's network left on the GPU",
        "lth_core/train/masking/learned.py",
        "{name: w.cpu() for name, w in self.frozen.items()}",
        "self.frozen",
        "tests/gpu/test_gpu_maskings.py",
    ),
    Fault(
        "Adam's step counts restored on the CPU",
        "lth_core/train/checkpoint.py",
        "value.to(parameter.device)",
        "value",
        "tests/gpu/test_gpu_checkpoints.py",
    ),
    Fault(
        "recurrent layers scored by cuDNN, which has no backward pass in evaluation mode",
        "lth_core/models/derivatives.py",
        "before and not recurrent",
        "before",
        "tests/core/prune/test_scores.py",
    ),
    Fault(
        "masks found in the training's or the GPU's own precision",
        "lth_core/train/trainer.py",
        'with arithmetic("fp32", self.device):\n                return',
        "if True:\n                return",
        "tests/core/train/test_trainer.py",
    ),
    Fault(
        "CUDA graph: learning rate of the capture in every step",
        "lth_core/train/optimizer.py",
        'options["lr"] = torch.tensor(spec.lr, device=parameters[0].device)',
        "pass",
        "tests/gpu/test_gpu_packs.py",
    ),
    Fault(
        "CUDA graph: batch of the capture in every step",
        "lth_core/train/pack/graph.py",
        "indices.copy_(index)",
        "pass",
        "tests/gpu/test_gpu_packs.py",
    ),
]  # fmt: skip


def lost(fault: Fault, root: Path = ROOT) -> bool:
    """Whether the code no longer has the text that the fault replaces, once."""
    return (root / fault.file).read_text().count(fault.right) != 1


def is_caught(fault: Fault) -> tuple[bool, str]:
    """Whether the test fails once the fault is planted, and the first test that did."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True,
            text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        for name in listed:
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
        target = copy / fault.file
        target.write_text(target.read_text().replace(fault.right, fault.wrong))
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not (ray or long or gpu or data)",
             fault.caught_by],
            cwd=copy, capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)},
        )  # fmt: skip
    failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
    return ran.returncode == 1 and bool(failed), (failed or ran.stdout.splitlines()[-1:] or [""])[0]


def main() -> int:
    """Plant each fault; 1 where any is not caught."""
    chosen = [fault for fault in FAULTS if not sys.argv[1:] or sys.argv[1] in fault.name]
    missed = 0
    for fault in chosen:
        caught, by = is_caught(fault)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED'}  {fault.name}: {by}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults are caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
