"""The hot loop of llama-shaped families in one file: ids -> layers -> losses of the learnt tokens -> gradients.

Rows lie one after another without padding; tokens that all rows of a batch begin with are computed once. Every layer
goes forward and backward by hand, so that what is kept, and when it is let go, can be read here:

- the residual stream is fp32, products are in the base's dtype with base and adapter in one rounding (`lora.Product`);
- q/k/v are one product, gate/up are one product;
- behind the last attention only the positions go on from which a learnt token is predicted;
- below the first adapter there is no backward pass.

PEFT keeps owning the adapter's parameters: they are read at the start of every pass and get their gradients by autograd,
which sees the decoder as one operation. The same code runs on a GPU; only the attention differs.

Axes: T tokens of the batch, S learnt tokens, E hidden size, O = (H + 2 K) D queries, keys and values, H query heads,
K key/value heads, N = any heads, D head size, C = D / 2, F inner size of the MLP, R ranks of a product's adapters.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from core.config import Config
from trainer.backends.attention import Heads, Rows, attention_for
from trainer.backends.batches import FLAT_TOKENS, Packed, pack
from trainer.backends.elements import Elements, wants_compiling
from trainer.backends.lora import Product, is_plain
from trainer.backends.loss import TokenLoss
from trainer.examples import Example

log = logging.getLogger(__name__)

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma"})
MORE_THAN_ONE = frozenset({"gemma"})  # norms multiply by 1 + weight
COMPILED_TOKENS = 320  # of the made-up pass that compiles
Grads = list[torch.Tensor]


@dataclass(slots=True)
class Kept:
    """What one layer keeps for its backward pass."""

    x_TE: torch.Tensor  # fp32, residual before attention
    rate_T1: torch.Tensor
    normed_TE: torch.Tensor  # with room for R
    qkv_TO: torch.Tensor  # before the norms of q and k, where there are any; else turned
    heads: Heads
    head_rates: tuple[torch.Tensor, ...]
    attended: Any
    mixed_TO: torch.Tensor  # H D and room for R; S rows in the last layer
    middle_TE: torch.Tensor  # fp32, residual before the MLP
    middle_rate_T1: torch.Tensor
    middle_normed_TE: torch.Tensor
    gate_up_TF: torch.Tensor  # 2 F
    gated_TF: torch.Tensor  # F and room for R


@dataclass(slots=True)
class Flow:
    """One pass through the layers."""

    batch: Packed
    cos_T1C: torch.Tensor
    sin_T1C: torch.Tensor
    elements: Elements
    is_on: bool  # whether the adapters count
    keeps: bool  # whether a backward pass will follow


class Layer:
    """The weights of one layer, and its way forward and backward."""

    def __init__(self, block: Any, shape: Any, *, is_last: bool) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.qkv = Product([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o = Product([attention.o_proj])
        self.gate_up = Product([mlp.gate_proj, mlp.up_proj])
        self.down = Product([mlp.down_proj])
        norms = [block.input_layernorm, block.post_attention_layernorm]
        self.norm_E, self.middle_norm_E = (_norm_weight(norm, shape) for norm in norms)
        self.head_norms_D = tuple(_norm_weight(norm, shape) for norm in _head_norms(attention))
        self.eps = float(shape.rms_norm_eps)
        self.size, self.scale = int(attention.head_dim), float(attention.scaling)
        self.num_q, self.num_kv = shape.num_attention_heads, shape.num_key_value_heads
        self.is_last = is_last
        self.attention = attention_for(self.norm_E.device)

    @property
    def products(self) -> tuple[Product, ...]:
        """In the order of the parameters."""
        return self.qkv, self.o, self.gate_up, self.down

    def forward(self, x_TE: torch.Tensor, more_TE: torch.Tensor | None, flow: Flow) -> tuple[torch.Tensor, torch.Tensor, Kept]:
        """The residual before the MLP and what the MLP adds to it (both S E after the last layer), and what is kept."""
        elements, on = flow.elements, flow.is_on
        normed_TE = self.qkv.input(len(x_TE), x_TE)  # T, E + R
        x_TE, rate_T1 = elements.add_norm(x_TE, more_TE, self.norm_E, self.eps, normed_TE[:, : self.qkv.inputs])
        qkv_TO = self.qkv.forward(normed_TE, on)  # T, (H + 2 K) D
        heads, head_rates = self._heads(qkv_TO, flow)  # T H D, T K D, T K D
        mixed_TO = self.o.input(len(x_TE), x_TE)  # T, H D + R
        mixed_THD = mixed_TO[:, : self.o.inputs].unflatten(1, (self.num_q, self.size))
        attended = self.attention.forward(heads, flow.batch.rows, self.scale, mixed_THD, keep=flow.keeps)
        stream_TE = x_TE
        if self.is_last:  # from here on T is S
            stream_TE, mixed_TO = x_TE[flow.batch.sources_S], mixed_TO[flow.batch.sources_S]
        mixed_TE = self.o.forward(mixed_TO, on)
        middle_normed_TE = self.gate_up.input(len(stream_TE), x_TE)
        middle_TE, middle_rate_T1 = elements.add_norm(stream_TE, mixed_TE, self.middle_norm_E, self.eps, middle_normed_TE[:, : self.gate_up.inputs])
        gate_up_TF = self.gate_up.forward(middle_normed_TE, on)  # T, 2 F
        gated_TF = self.down.input(len(stream_TE), x_TE)  # T, F + R
        elements.gate(gate_up_TF, gated_TF[:, : self.down.inputs])
        added_TE = self.down.forward(gated_TF, on)
        kept = Kept(
            *(x_TE, rate_T1, normed_TE, qkv_TO, heads, head_rates, attended, mixed_TO),
            *(middle_TE, middle_rate_T1, middle_normed_TE, gate_up_TF, gated_TF),
        )
        return middle_TE, added_TE, kept

    def backward(self, grad_TE: torch.Tensor, kept: Kept, flow: Flow, *, wants_x: bool) -> tuple[torch.Tensor | None, Grads]:
        """The gradient by the residual before the layer (None unless `wants_x`), given that behind it (overwritten); and those of the adapters."""
        elements = flow.elements
        wants_heads = wants_x or bool(self.qkv.ranks)
        wants_middle = wants_heads or bool(self.o.ranks)
        slope_TJ = self.down.slope(len(grad_TE))  # T, E + R
        slope_TJ[:, : self.down.outs] = grad_TE
        gated_TF, down_grads = self.down.backward(slope_TJ, kept.gated_TF, wants_x=wants_middle or bool(self.gate_up.ranks))
        if gated_TF is None:
            return None, down_grads
        slope_TJ = self.gate_up.slope(len(grad_TE))  # T, 2 F + R
        elements.gate_slope(gated_TF, kept.gate_up_TF, slope_TJ[:, : self.gate_up.outs])
        normed_TE, gate_up_grads = self.gate_up.backward(slope_TJ, kept.middle_normed_TE, wants_x=wants_middle)
        if normed_TE is None:
            return None, gate_up_grads + down_grads
        elements.add_norm_slope(normed_TE, kept.middle_TE, kept.middle_rate_T1, self.middle_norm_E, grad_TE)

        slope_TJ = self.o.slope(len(grad_TE))  # T, E + R
        slope_TJ[:, : self.o.outs] = grad_TE
        mixed_TO, o_grads = self.o.backward(slope_TJ, kept.mixed_TO, wants_x=wants_heads)
        if mixed_TO is None:
            return None, o_grads + gate_up_grads + down_grads
        if self.is_last:  # from here on T again
            mixed_TO, grad_TE = _back_to_all(mixed_TO, flow.batch), _back_to_all(grad_TE, flow.batch)
        slope_TJ = self.qkv.slope(len(grad_TE))  # T, O + R
        self._heads_slope(mixed_TO.unflatten(1, (self.num_q, self.size)), kept, slope_TJ[:, : self.qkv.outs], flow)
        normed_TE, qkv_grads = self.qkv.backward(slope_TJ, kept.normed_TE, wants_x=wants_x)
        grads = qkv_grads + o_grads + gate_up_grads + down_grads
        if normed_TE is None:
            return None, grads
        elements.add_norm_slope(normed_TE, kept.x_TE, kept.rate_T1, self.norm_E, grad_TE)
        return grad_TE, grads

    def _split(self, qkv_TO: torch.Tensor) -> Heads:
        heads_TND = qkv_TO.unflatten(1, (-1, self.size))
        queries_THD, keys_TKD, values_TKD = heads_TND.split([self.num_q, self.num_kv, self.num_kv], 1)
        return queries_THD, keys_TKD, values_TKD

    def _heads(self, qkv_TO: torch.Tensor, flow: Flow) -> tuple[Heads, tuple[torch.Tensor, ...]]:
        """Queries and keys normed, where the family does so, and turned by their places; values as they are. Without norms in place."""
        queries_THD, keys_TKD, values_TKD = self._split(qkv_TO)
        rates: tuple[torch.Tensor, ...] = ()
        if self.head_norms_D:
            normed = [torch.empty_like(heads, memory_format=torch.contiguous_format) for heads in (queries_THD, keys_TKD)]
            pairs = zip((queries_THD, keys_TKD), self.head_norms_D, normed, strict=True)
            rates = tuple(flow.elements.add_norm(heads.float(), None, weight_D, self.eps, out)[1] for heads, weight_D, out in pairs)
            queries_THD, keys_TKD = normed
            flow.elements.rotate(queries_THD, flow.cos_T1C, flow.sin_T1C)
            flow.elements.rotate(keys_TKD, flow.cos_T1C, flow.sin_T1C)
        else:
            turned_TND = qkv_TO.unflatten(1, (-1, self.size))[:, : self.num_q + self.num_kv]
            flow.elements.rotate(turned_TND, flow.cos_T1C, flow.sin_T1C)
        return (queries_THD, keys_TKD, values_TKD), rates

    def _heads_slope(self, grad_THD: torch.Tensor, kept: Kept, out_TO: torch.Tensor, flow: Flow) -> None:
        """Fills `out` with the gradient by q, k and v as the product gave them."""
        slopes = self._split(out_TO)
        self.attention.backward(kept.attended, grad_THD, kept.heads, slopes)
        turned_TND = out_TO.unflatten(1, (-1, self.size))[:, : self.num_q + self.num_kv]
        flow.elements.rotate(turned_TND, flow.cos_T1C, -flow.sin_T1C)
        for slope_TND, raw_TND, rate, weight_D in zip(slopes, self._split(kept.qkv_TO), kept.head_rates, self.head_norms_D, strict=False):
            into_TND = torch.zeros_like(slope_TND, dtype=torch.float32)
            flow.elements.add_norm_slope(slope_TND, raw_TND.float(), rate, weight_D, into_TND)
            slope_TND.copy_(into_TND)


@dataclass(slots=True)
class FastPath:
    """The fast path of one model: a `Forward` for training and scoring, with an adapter or without."""

    embed: Any
    rotary: Any
    layers: list[Layer]
    norm_E: torch.Tensor
    head_VE: torch.Tensor
    eps: float
    plain: Elements
    elements: Elements
    """Those of passes that keep; the same as `plain` where nothing is compiled."""
    checkpoints: bool = False
    """Whether a layer keeps only its input and is computed a second time on the way back."""
    budget_tokens: int = FLAT_TOKENS
    params: list[torch.nn.Parameter] = field(init=False)
    lowest: int = field(init=False)

    def __post_init__(self) -> None:
        self.params = [param for layer in self.layers for product in layer.products for param in product.params]
        has_adapter = [any(product.ranks for product in layer.products) for layer in self.layers]
        self.lowest = has_adapter.index(True) if True in has_adapter else len(self.layers)

    @property
    def is_on(self) -> bool:
        """Whether the adapter counts; without one, never."""
        return any(product.is_on for layer in self.layers for product in layer.products)

    def cost(self, num_rows: int, tokens: int, longest: int) -> int:
        """Positions that are computed: the tokens themselves, as nothing is padded."""
        return tokens

    def token_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log p (nats, float32) of every learnt token, the examples one after another: shape (learnt tokens,)."""
        return self.token_scores(examples)[0]

    def token_scores(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and for each token whether the model holds it the likeliest: both of shape (learnt tokens,)."""
        batch = pack(examples, self.head_VE.device)
        for layer in self.layers:
            for product in layer.products:
                product.refresh()
        if torch.is_grad_enabled() and self.is_on and any(param.requires_grad for param in self.params):
            hidden_SE = _Decoder.apply(self, batch, *self.params)
        else:
            hidden_SE, _, _ = self.forward(batch, keeps=False)
        scores: tuple[torch.Tensor, torch.Tensor] = TokenLoss.apply(hidden_SE, self.head_VE, batch.targets_S)
        return scores

    def forward(self, batch: Packed, *, keeps: bool) -> tuple[torch.Tensor, Flow, list[Any]]:
        """The normed hidden states from which learnt tokens are predicted, S E, and what the way back needs."""
        x_TE = self.embed(batch.ids_T).float()  # T -> T E
        flow = self._flow(batch, x_TE, keeps=keeps)
        more_TE: torch.Tensor | None = None
        kept: list[Any] = []
        for number, layer in enumerate(self.layers):
            x_TE, more_TE, own = layer.forward(x_TE, more_TE, flow)  # the last: T E -> S E
            if keeps and number >= self.lowest:
                kept.append(own.x_TE if self.checkpoints else own)
            del own
        hidden_SE = x_TE.new_empty(x_TE.shape, dtype=self.head_VE.dtype)
        x_SE, rate_S1 = flow.elements.add_norm(x_TE, more_TE, self.norm_E, self.eps, hidden_SE)
        return hidden_SE, flow, [*kept, (x_SE, rate_S1)] if keeps else []

    def backward(self, grad_SE: torch.Tensor, flow: Flow, kept: list[Any]) -> Grads:
        """The gradients of `params`, given that of the hidden states. Empties `kept`, layer by layer."""
        x_SE, rate_S1 = kept.pop()
        grad_TE: torch.Tensor | None = torch.zeros_like(x_SE)  # S E until the last layer's attention
        flow.elements.add_norm_slope(grad_SE, x_SE, rate_S1, self.norm_E, grad_TE)
        grads: Grads = []
        for number in range(len(self.layers) - 1, self.lowest - 1, -1):
            assert grad_TE is not None
            own = kept.pop()
            if self.checkpoints:
                own = self.layers[number].forward(own, None, flow)[2]
            grad_TE, layer_grads = self.layers[number].backward(grad_TE, own, flow, wants_x=number > self.lowest)
            grads = layer_grads + grads
        return grads

    def _flow(self, batch: Packed, x_TE: torch.Tensor, *, keeps: bool) -> Flow:
        cos_1TD, sin_1TD = self.rotary(x_TE[None], batch.places_T[None])
        half, dtype = cos_1TD.shape[-1] // 2, self.head_VE.dtype
        cos_T1C, sin_T1C = (angle_1TD[0, :, None, :half].to(dtype) for angle_1TD in (cos_1TD, sin_1TD))
        return Flow(batch, cos_T1C, sin_T1C, self.elements if keeps else self.plain, self.is_on, keeps)


class _Decoder(torch.autograd.Function):
    """The decoder as autograd sees it: hidden states from the adapter's parameters."""

    @staticmethod
    def forward(ctx: Any, path: FastPath, batch: Packed, *params: torch.Tensor) -> torch.Tensor:
        hidden_SE, ctx.flow, ctx.kept = path.forward(batch, keeps=True)
        ctx.path = path
        return hidden_SE

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        found = ctx.path.backward(grads[0], ctx.flow, ctx.kept)
        return (None, None, *found)


def _back_to_all(grad_SX: torch.Tensor, batch: Packed) -> torch.Tensor:
    return grad_SX.new_zeros(len(batch.ids_T), grad_SX.shape[1]).index_copy_(0, batch.sources_S, grad_SX)


def _norm_weight(norm: Any, shape: Any) -> torch.Tensor:
    weight = norm.weight.detach().float()
    return weight + 1.0 if shape.model_type in MORE_THAN_ONE else weight


def _head_norms(attention: Any) -> list[Any]:
    return [attention.q_norm, attention.k_norm] if hasattr(attention, "q_norm") else []


def fast_path_of(model: Any, config: Config, work_tokens: int = 0) -> FastPath | None:
    """The fast path of a model, with or without an adapter; None, with a log line that says why, where it is not exact or not made for it.

    The base's own weights become views of fused ones, so the model stays usable. `work_tokens` is what the training will
    go through in all: by it compiling pays or not. A second call on the same model takes the first one's place.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if (doubt := fast_doubt(inner, config)) is not None:
        log.info("the fast path is not taken: %s", doubt)
        return None
    decoder, head = inner.get_decoder(), inner.get_output_embeddings()
    with torch.inference_mode(False), torch.no_grad():
        blocks = list(decoder.layers)
        layers = [Layer(block, inner.config, is_last=block is blocks[-1]) for block in blocks]
        plain = Elements.plain(_activation(inner.config))
        path = FastPath(
            embed=decoder.embed_tokens,
            rotary=decoder.rotary_emb,
            layers=layers,
            norm_E=_norm_weight(decoder.norm, inner.config),
            head_VE=head.weight.detach(),
            eps=float(inner.config.rms_norm_eps),
            plain=plain,
            elements=plain,
            checkpoints=config.training.gradient_checkpointing == "on",
        )
    if path.params and wants_compiling(config, work_tokens, path.head_VE.device):
        _compile(path, _activation(inner.config))
    return path


def _compile(path: FastPath, activation: str) -> None:
    """Compile the element-wise parts by a pass over made-up rows, always the same: the code depends on the sizes that it sees first."""
    began = time.monotonic()
    device = path.head_VE.device
    ids_T, sources_S = torch.zeros(COMPILED_TOKENS, dtype=torch.long, device=device), torch.arange(1, COMPILED_TOKENS, 2, device=device)
    batch = Packed(ids_T, torch.arange(COMPILED_TOKENS, device=device), Rows([(0, COMPILED_TOKENS)]), sources_S, ids_T[sources_S])
    path.elements = Elements.compiled(activation, device)
    try:
        with torch.no_grad():
            hidden_SE, flow, kept = path.forward(batch, keeps=True)
            path.backward(torch.zeros_like(hidden_SE), flow, kept)
    except (RuntimeError, OSError, ImportError) as error:
        log.info("element-wise parts run uncompiled: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        path.elements = path.plain
    else:
        log.info("element-wise parts compiled in %.1f s", time.monotonic() - began)


def fast_doubt(model: Any, config: Config) -> str | None:
    """Why a model (without PEFT's wrapper) cannot take the fast path; None where it can."""
    shape = model.config
    if shape.model_type not in FAMILIES:
        return f"{shape.model_type} is not one of its families"
    if (window := getattr(shape, "sliding_window", None)) and window < config.max_length:
        return f"its attention looks back {window} tokens only, and max_length is {config.max_length}"
    if getattr(shape, "attention_dropout", 0) or config.lora.dropout:
        return "dropout"
    if _activation(shape) not in Elements.ACTIVATIONS:
        return f"the activation {_activation(shape)!r}"
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    dtype = head.weight.dtype
    if dtype not in (torch.float32, torch.bfloat16):
        return f"the base computes in {dtype}"
    if type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
        return "its output embedding is trained, quantised or has a bias"
    if not isinstance(decoder.embed_tokens, torch.nn.Embedding):
        return "its input embedding is adapted or trained"
    if strange := [name for name, param in model.named_parameters() if param.requires_grad and ".lora_A." not in name and ".lora_B." not in name]:
        return f"{strange[0]} is trained, which is no adapter of a linear layer"
    for block in decoder.layers:
        attention, mlp = block.self_attn, block.mlp
        for name, layer in (*attention.named_children(), *mlp.named_children()):
            if name.endswith("_proj") and not is_plain(layer, dtype):
                return f"{name} is quantised, trained itself, or its adapter is of a kind of its own"
    if decoder.rotary_emb.inv_freq.shape[-1] * 2 != decoder.layers[0].self_attn.head_dim:
        return "it turns a part of each head only"
    return None


def _activation(shape: Any) -> str:
    return str(getattr(shape, "hidden_activation", None) or shape.hidden_act)
