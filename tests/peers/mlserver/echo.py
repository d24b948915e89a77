"""A model of MLServer that gives back what it gets, as it gets it; runs in the peer's own environment."""

import os
import signal

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Echo(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        named = {tensor.name: tensor for tensor in payload.inputs}
        if "refuse" in named:
            raise MLServerError("these inputs will not do", 400)
        if "fail" in named:
            raise RuntimeError("the model broke")
        if "die" in named:
            os.kill(os.getpid(), signal.SIGKILL)
        outputs = [
            ResponseOutput(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=tensor.data)
            for tensor in payload.inputs
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)
