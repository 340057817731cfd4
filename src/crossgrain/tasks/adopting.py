"""What a task's head takes over from the heads of the run that it starts from."""

from collections.abc import Mapping

from torch import Tensor, nn


def take_fitting(head: nn.Module, learnt: Mapping[str, Tensor]) -> list[str]:
    """Copy the tensors that the head has under the same name in the same shape; returns the parts that got any."""
    own = head.state_dict()
    fitting = {name: tensor for name, tensor in learnt.items() if name in own and own[name].shape == tensor.shape}
    head.load_state_dict(own | fitting)
    return list(dict.fromkeys(name.split(".")[0] for name in fitting))
