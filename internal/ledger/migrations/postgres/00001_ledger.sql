-- +goose Up
CREATE TABLE pentrough_ledger (
    host     text        NOT NULL,
    number   bigint      NOT NULL,
    pipeline text        NOT NULL,
    id       text        NOT NULL,
    device   text        NOT NULL,
    digest   bytea       NOT NULL,
    state    smallint    NOT NULL, -- 1 writing, 2 done, 3 confirmed
    attempts integer     NOT NULL,
    outputs  bytea,                -- JSON; null before the state is done
    changed  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host, number),
    UNIQUE (host, pipeline, id, device)
);

-- +goose Down
DROP TABLE pentrough_ledger;
