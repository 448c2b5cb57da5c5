{{ config(
    unique_key=['node_id'],
    indexes=[{'columns': ['node_id', 'valid_from']}],
    pre_hook="{{ find_affected_registry('network_nodes', 'node_id') }}"
) }}

with

source as (

    select *
    from {{ source('raw_data', 'network_nodes') }}

),

received as (

    select
        *,
        row_number() over (partition by node_id, valid_from order by id desc) as recency
    from {{ affected_rows('source', ['node_id']) }} as nodes

),

latest as (

    select
        *,
        lead(valid_from) over (partition by node_id order by valid_from) as next_valid_from
    from received
    where recency = 1

)

select
    ---------- ids
    node_id,
    node_type,
    parent_id,
    ---------- attributes
    rated_kva,
    no_load_loss_kw,
    load_loss_kw,
    latitude,
    longitude,
    ---------- validity
    valid_from,
    case when valid_to < next_valid_from then valid_to else coalesce(next_valid_from, valid_to) end as valid_to
from latest
