{{ config(
    unique_key=['month_start'],
    indexes=[{'columns': ['month_start', 'node_id']}],
    pre_hook="{{ find_affected_losses() }}"
) }}

with

days as (

    select
        *,
        {{ period_start('month', 'reading_date') }} as month_start,
        row_number() over (
            partition by node_id, {{ period_start('month', 'reading_date') }}
            order by reading_date desc
        ) as recency
    from {{ rows_of_periods(ref('int_energy_balance'), period_start('month', 'reading_date'), 'month_start') }}
    where unexplained_kwh is not null

),

-- numerics add up to the same in any order
months as (

    select
        node_id,
        month_start,
        max(case when recency = 1 then node_type end) as node_type,
        max(case when recency = 1 then parent_id end) as parent_id,
        max(case when recency = 1 then meter_count end) as meter_count,
        sum(cast(energy_in_kwh as numeric)) as energy_in_kwh,
        sum(cast(energy_metered_kwh as numeric)) as energy_metered_kwh,
        sum(cast(technical_loss_kwh as numeric)) as technical_loss_kwh,
        sum(cast(completeness as numeric)) as completeness,
        coalesce(
            sum(cast(energy_metered_kwh as numeric) * cast(tariff_per_kwh as numeric))
            / nullif(sum(case when tariff_per_kwh is not null then cast(energy_metered_kwh as numeric) end), 0),
            avg(cast(tariff_per_kwh as numeric))
        ) as tariff_per_kwh,
        case when min(currency) = max(currency) then min(currency) end as currency,
        count(*) as day_count
    from days
    group by 1, 2

),

compared as (

    select
        *,
        energy_in_kwh - energy_metered_kwh - technical_loss_kwh as unexplained_kwh,
        {{ period_hours('month', 'month_start') }} / 24 as month_days
    from months

)

select
    node_id,
    node_type,
    parent_id,
    month_start,
    {{ as_double('energy_in_kwh') }} as energy_in_kwh,
    {{ as_double('energy_metered_kwh') }} as energy_metered_kwh,
    {{ as_double('technical_loss_kwh') }} as technical_loss_kwh,
    {{ as_double('unexplained_kwh') }} as unexplained_kwh,
    {{ as_double('unexplained_kwh / nullif(energy_in_kwh, 0)') }} as unexplained_share,
    case when currency is not null then {{ as_double('unexplained_kwh * tariff_per_kwh') }} end as unexplained_value,
    currency,
    {{ as_double('completeness / month_days') }} as completeness,
    meter_count
from compared
