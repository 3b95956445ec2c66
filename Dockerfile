# An image with Whetstone, for CPUs. For NVIDIA GPUs: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 …
#     docker build -t whetstone .
#     docker run --rm -v "$PWD/runs:/home/whetstone/runs" whetstone run tiny
#     docker run --rm -v "$PWD/runs:/home/whetstone/runs" -p 8000:8000 -e WHETSTONE_API_KEY whetstone serve -m runs/tiny --host 0.0.0.0
FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /venv
RUN /venv/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.11,<2.14"
COPY . /src
RUN /venv/bin/pip install --no-cache-dir "/src[gguf,lora,hub,serve]"

FROM python:3.12-slim
# [parallel] compile needs a compiler (PyTorch's inductor, Triton); its kernels and numba's are kept in the user's cache
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 whetstone
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH OMP_WAIT_POLICY=passive
USER whetstone
WORKDIR /home/whetstone
ENTRYPOINT ["whetstone"]
CMD ["--help"]
