# The tests, in a clean environment:  docker build -t ssl_extract . && docker run ssl_extract
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium libatomic1 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ssl_extract
COPY . .
RUN make .venv/.installed
CMD ["make", "test"]
