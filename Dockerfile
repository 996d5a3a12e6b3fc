# The images of deploy/.  In a clone of this repository:
#
#     docker build --target stepfront -t registry.example.com/stepfront:0.2.0 .    # deploy/kuberay: edit the name, then push
#     docker build --target mlflow .                                              # deploy/compose builds it by itself
#
# Without GPUs: --build-arg RAY_IMAGE=rayproject/ray:2.60.0-py311

ARG RAY_IMAGE=rayproject/ray:2.60.0-py311-gpu

FROM python:3.11-slim AS mlflow
RUN pip install --no-cache-dir mlflow==3.17.2 'psycopg[binary]' boto3
RUN useradd --create-home mlflow
USER mlflow

FROM ${RAY_IMAGE} AS stepfront
COPY --chown=ray . /opt/stepfront
RUN cd /opt/stepfront && pip install --no-cache-dir -c constraints.txt '.[postgres]'
WORKDIR /opt/stepfront
