-- The example table of deploy/crossfade.toml, with what crossfade needs of any table.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE articles (
    id bigint PRIMARY KEY,
    title text,
    body text NOT NULL,
    author text,
    published date,
    -- Set by crossfade alone; every other column is the application's.
    crossfade_version bigint
);

-- Captured changes must carry what was there before.
ALTER TABLE articles REPLICA IDENTITY FULL;

CREATE INDEX articles_full_text ON articles
    USING gin (to_tsvector('english'::regconfig, left(coalesce(title, '') || ' ' || coalesce(body, ''), 130000)));
