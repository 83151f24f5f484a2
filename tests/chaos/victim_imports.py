"""What the server of victims imports before it forks them; nothing that starts a thread."""

import faiss  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch
import transformers  # noqa: F401

import influcoder_assets.commands.driver
import influcoder_assets.definitions  # noqa: F401
from influcoder_lib import memory

torch.set_num_threads(1)
memory.release = lambda: None
