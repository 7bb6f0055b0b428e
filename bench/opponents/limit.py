"""How fast a matrix product of 2048 in bf16 is right now, once for each step of the others. Arguments: none that it reads."""

from bench.opponents.pace import Pace


def main() -> None:
    pace = Pace()
    import torch

    from trainer.backends.limit import product_flops

    pace.ready()
    while True:
        pace.wait()
        pace.done(flops=product_flops(torch.device("cpu"), torch.bfloat16))


main()
