# The steps of README.md on Debian: docker build -t conditional-sr . && docker run --rm --network host conditional-sr
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends make g++ libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /conditional-sr
COPY . .
RUN make setup && . .venv/bin/activate
ENV PATH=/conditional-sr/.venv/bin:$PATH
RUN pip install -r requirements-app.txt
# On 127.0.0.1 of the host. With a detector: docker run ... python app.py --detector FILE --sr shipped --scale 4
CMD ["make", "app"]
