# A service for the model at /models/current. Give the models as a volume, read-only, and a key:
#   docker run -p 127.0.0.1:8000:8000 -e GREYSHEEP_API_KEY -v "$PWD/models":/models:ro greysheep
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 greysheep
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
        --find-links /tmp/wheels "greysheep[serve]" \
    && rm -r /tmp/wheels /tmp/constraints.txt
USER greysheep
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=5)"]
# within the container any address; which one reaches it is said by `docker run -p`
ENTRYPOINT ["greysheep", "serve", "--host", "0.0.0.0"]
CMD ["/models/current"]
