"""LoRA: low-rank changes to the linear layers of a frozen encoder, with ``peft``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.layers import CLASSIFIER, POOLER, encoder_layers, named_layers
from afqmc.models.transforms import ModelTransform
from afqmc.utils.errors import InputError, did_you_mean

_DIRECTORY = "adapter"
_NAME = "default"  # of the only adapter, in peft


class Lora(ModelTransform):
    """Freezes the encoder, and adds ``alpha / r * B A`` to the weights W (out, in) of its linear layers.

    A (r, in) has random weights, and B (out, r) starts at 0 (Hu et al. 2022, arXiv:2106.09685, equation 3). Pooler and
    classifier are trained as usual. ``checkpoints/best`` has the merged weights; its directory ``adapter`` has A and B
    in the format of ``peft``, for the encoder as ``AutoModel`` loads it.

    Args:
        r: Rank.
        alpha: Scale.
        dropout: On the inputs of A.
        targets: Names of linear layers, such as ``query``; None for all linear layers of the encoder's layers.
    """

    def __init__(self, r: int, alpha: float, dropout: float, targets: Sequence[str] | None) -> None:
        self.r, self.alpha, self.dropout, self.targets = r, alpha, dropout, targets
        self.config: Any = None
        self._counts: dict[str, float] = {}
        if find_spec("peft") is None:
            raise InputError(f"model.lora.r={r}: needs peft: pip install 'afqmc[lora]'")

    def apply(self, model: nn.Module) -> None:
        """Add the adapter and freeze the other weights of the encoder.

        Raises:
            InputError: if the layers of the model are not known, or a target matches none of their linear layers.
        """
        import peft

        names = self._target_names(model)
        assert isinstance(model, CrossEncoder)
        arguments: dict[str, Any] = {"r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        base = model.encoder.name_or_path or None
        self.config = peft.LoraConfig(**arguments, target_modules=names, base_model_name_or_path=base)
        peft.inject_adapter_in_model(self.config, model.encoder, adapter_name=_NAME)
        layers = named_layers(model, "model.lora")
        for parameter in (*layers.get(POOLER, {}).values(), *layers[CLASSIFIER].values()):
            parameter.requires_grad_(True)
        trained = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
        self._counts = {
            "trainable_parameters": sum(count for _, count in trained),
            "adapter_parameters": sum(count for name, count in trained if ".lora_" in name),
        }

    def _target_names(self, model: nn.Module) -> list[str]:
        """Return the names in the encoder of the layers to change."""
        stack, layers = encoder_layers(model, f"model.lora.r={self.r}")
        assert isinstance(model, CrossEncoder)
        prefix = stack.removeprefix(f"{model.prefix}.")
        names = [f"{prefix}.{name}" for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
        if self.targets is None:
            return names
        selected = []
        for target in self.targets:
            matching = [name for name in names if name.endswith(f".{target}")]
            if not matching:
                # without the numbers of the layers: attention.self.query and its last part, query
                paths = {name.removeprefix(f"{prefix}.").partition(".")[2] for name in names}
                exist = paths | {path.rpartition(".")[2] for path in paths}
                raise InputError(f"model.lora.targets: no linear layer is called {target}{did_you_mean(target, exist)}")
            selected += matching
        return sorted({*selected})

    def merge(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights W + alpha / r * B A under their usual names."""
        merged = {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}
        for name in state:
            if name.endswith(f".lora_A.{_NAME}.weight"):
                layer = name.removesuffix(f".lora_A.{_NAME}.weight")
                product = state[f"{layer}.lora_B.{_NAME}.weight"] @ state[name]  # (out, in)
                merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + self.alpha / self.r * product
        return merged

    def save(self, directory: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Write the adapter, which ``peft.PeftModel.from_pretrained(encoder, directory / "adapter")`` loads."""
        assert isinstance(model, CrossEncoder)
        adapter = {
            f"base_model.model.{name.removeprefix(f'{model.prefix}.').replace(f'.{_NAME}.', '.')}": value.contiguous()
            for name, value in state.items()
            if ".lora_" in name
        }
        target = directory / _DIRECTORY
        target.mkdir()
        save_file(adapter, target / "adapter_model.safetensors", metadata={"format": "pt"})
        self.config.inference_mode = True
        self.config.save_pretrained(target)

    def report(self) -> dict[str, float]:
        """Return the numbers of trainable parameters, and of those of the adapter."""
        return self._counts
