-- +goose Up
CREATE TABLE ledger (
    number   INTEGER PRIMARY KEY,
    pipeline TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    device   TEXT    NOT NULL,
    digest   BLOB    NOT NULL,
    state    INTEGER NOT NULL, -- 1 writing, 2 done, 3 confirmed
    attempts INTEGER NOT NULL,
    outputs  BLOB,             -- JSON; null before the state is done
    changed  INTEGER NOT NULL, -- Unix milliseconds
    UNIQUE (pipeline, id, device)
) STRICT;

-- +goose Down
DROP TABLE ledger;
