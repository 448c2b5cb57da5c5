{#  Numerics add up to the same in any order, so that an incremental build gives the digits of a whole one. #}
{%- set levels_below = 3 %}  {# a transformer, a feeder, a feeder it branches off, and the substation #}
{%- set least_share = 0.5 %}  {# of readings: with fewer, a balance would be of estimates #}
{%- set day_minutes = 1440 %}

{{ config(
    unique_key=['reading_date'],
    indexes=[{'columns': ['reading_date', 'node_id']}],
    pre_hook="{{ find_affected_balance() }}"
) }}

with

registered_nodes as (

    select *
    from {{ ref('stg_network_nodes') }}

),

registered_meters as (

    select *
    from {{ ref('stg_meters') }}

),

consumption as (

    select
        meter_id,
        reading_date,
        exact_consumption_kwh,
        covered_minutes
    from {{ rows_of_days(ref('int_readings_daily'), 'reading_date', 'input_days') }}

),

node_days as (

    select
        node_id,
        cast(reading_timestamp as date) as reading_date,
        sum(energy_in_kwh) as energy_in_kwh,
        sum(energy_in_kwh * energy_in_kwh * 60 / interval_minutes) as squared_kw2_hours,
        cast(sum(interval_minutes) as numeric) as read_minutes,
        cast(sum(case when energy_in_kwh <> 0 then interval_minutes else 0 end) as numeric) as live_minutes
    from {{ rows_of_periods(ref('stg_network_readings'), 'cast(reading_timestamp as date)', 'reading_date') }}
    group by 1, 2

),

dates as (

    select distinct reading_date
    from node_days

),

-- each node in force on each day, with what it read; a node that reads nothing is taken to be live all day
nodes as (

    select
        dates.reading_date,
        registry.node_id,
        registry.node_type,
        registry.parent_id,
        cast(coalesce(registry.no_load_loss_kw, 0) as numeric) as no_load_loss_kw,
        coalesce(
            cast(registry.load_loss_kw as numeric)
            / nullif(cast(registry.rated_kva as numeric) * {{ var('power_factor') }}, 0)
            / nullif(cast(registry.rated_kva as numeric) * {{ var('power_factor') }}, 0),
            0
        ) as load_loss_per_kw,
        node_days.energy_in_kwh,
        coalesce(node_days.squared_kw2_hours, 0) as squared_kw2_hours,
        node_days.read_minutes,
        coalesce(node_days.live_minutes, {{ day_minutes }}) as live_minutes,
        -- the whole day but for what was read as no flow: what the live minutes would be without gaps
        greatest({{ day_minutes }} - coalesce(node_days.read_minutes - node_days.live_minutes, 0), 0)
            as live_day_minutes
    from dates
    inner join registered_nodes as registry on {{ is_valid_on('registry', 'dates.reading_date') }}
    left join node_days
        on registry.node_id = node_days.node_id and dates.reading_date = node_days.reading_date

),

covered as (

    select
        *,
        coalesce(live_minutes / nullif(live_day_minutes, 0), 1) as live_share
    from nodes

),

-- the losses of each node on a day without gaps in its readings
losses as (

    select
        reading_date,
        node_id,
        no_load_loss_kw * live_day_minutes / 60
        + coalesce(load_loss_per_kw * squared_kw2_hours / nullif(live_share, 0), 0) as technical_loss_kwh
    from covered

),

-- each node with itself and all nodes below it
below as (

    select
        reading_date,
        node_id as top_id,
        node_id
    from nodes
    {% for level in range(levels_below) %}
        union
        select
            node_0.reading_date,
            node_{{ level }}.parent_id as top_id,
            node_0.node_id
        from nodes as node_0
        {% for step in range(1, level + 1) %}
            inner join nodes as node_{{ step }}
                on
                    node_{{ step - 1 }}.parent_id = node_{{ step }}.node_id
                    and node_{{ step - 1 }}.reading_date = node_{{ step }}.reading_date
        {% endfor %}
        where node_{{ level }}.parent_id is not null
    {% endfor %}

),

customers as (

    select
        dates.reading_date,
        registry.meter_id,
        registry.transformer_id,
        coalesce(registry.customer_class, '') as customer_class,
        cast(nullif(registry.contracted_power_kw, 0) as numeric) as contracted_power_kw,
        registry.tariff_per_kwh,
        registry.currency,
        coalesce(consumption.exact_consumption_kwh, 0) as measured_kwh,
        cast(coalesce(consumption.covered_minutes, 0) as numeric) as read_minutes,
        coalesce(covered.live_day_minutes, {{ day_minutes }}) as live_day_minutes
    from dates
    inner join registered_meters as registry on {{ is_valid_on('registry', 'dates.reading_date') }}
    left join consumption
        on registry.meter_id = consumption.meter_id and dates.reading_date = consumption.reading_date
    left join covered
        on registry.transformer_id = covered.node_id and dates.reading_date = covered.reading_date
    where registry.transformer_id is not null

),

-- a customer's energy in a whole day by its own readings, if these are of half of it at least
own_levels as (

    select
        *,
        case when read_minutes >= live_day_minutes then 1 else read_minutes / live_day_minutes end as read_share,
        case
            when read_minutes >= live_day_minutes then measured_kwh
            when read_minutes >= {{ least_share }} * live_day_minutes
                then measured_kwh * live_day_minutes / read_minutes
        end as own_level_kwh
    from customers

),

-- what the others of a class use, for those that sent too little
class_levels as (

    select
        reading_date,
        customer_class,
        sum(case when contracted_power_kw is not null then own_level_kwh end)
        / nullif(sum(case when own_level_kwh is not null then contracted_power_kw end), 0) as kwh_per_contracted_kw,
        avg(own_level_kwh) as mean_kwh
    from own_levels
    group by 1, 2

),

estimated as (

    select
        own_levels.*,
        case
            when own_levels.read_share = 1 then own_levels.measured_kwh
            else
                own_levels.measured_kwh
                + (1 - own_levels.read_share)
                * coalesce(
                    own_levels.own_level_kwh,
                    own_levels.contracted_power_kw * class_levels.kwh_per_contracted_kw,
                    class_levels.mean_kwh,
                    0
                )
        end as energy_kwh
    from own_levels
    inner join class_levels
        on
            own_levels.reading_date = class_levels.reading_date
            and own_levels.customer_class = class_levels.customer_class

),

by_transformer as (

    select
        reading_date,
        transformer_id,
        sum(energy_kwh) as energy_kwh,
        sum(measured_kwh) as measured_kwh,
        sum(read_share) as read_shares,
        count(*) as meter_count,
        sum(case when tariff_per_kwh is not null then energy_kwh end) as priced_kwh,
        sum(energy_kwh * tariff_per_kwh) as price,
        sum(tariff_per_kwh) as tariffs,
        count(tariff_per_kwh) as tariff_count,
        min(currency) as first_currency,
        max(currency) as last_currency
    from estimated
    group by 1, 2

),

metered as (

    select
        below.reading_date,
        below.top_id as node_id,
        sum(by_transformer.energy_kwh) as energy_kwh,
        sum(by_transformer.measured_kwh) as measured_kwh,
        sum(by_transformer.read_shares) as read_shares,
        sum(by_transformer.meter_count) as meter_count,
        coalesce(
            sum(by_transformer.price) / nullif(sum(by_transformer.priced_kwh), 0),
            sum(by_transformer.tariffs) / nullif(sum(by_transformer.tariff_count), 0)
        ) as tariff_per_kwh,
        min(by_transformer.first_currency) as first_currency,
        max(by_transformer.last_currency) as last_currency
    from below
    inner join by_transformer
        on below.node_id = by_transformer.transformer_id and below.reading_date = by_transformer.reading_date
    group by 1, 2

),

lost as (

    select
        below.reading_date,
        below.top_id as node_id,
        sum(losses.technical_loss_kwh) as technical_loss_kwh
    from below
    inner join losses on below.node_id = losses.node_id and below.reading_date = losses.reading_date
    group by 1, 2

),

-- all for the time that the node's own readings cover
compared as (

    select
        covered.node_id,
        covered.node_type,
        covered.parent_id,
        covered.reading_date,
        covered.energy_in_kwh,
        coalesce(metered.energy_kwh, 0) * covered.live_share as energy_metered_kwh,
        coalesce(metered.energy_kwh - metered.measured_kwh, 0) * covered.live_share as energy_estimated_kwh,
        lost.technical_loss_kwh * covered.live_share as technical_loss_kwh,
        covered.read_minutes / {{ day_minutes }} as own_share,
        coalesce(metered.read_shares / metered.meter_count, 1) as customers_share,
        coalesce(metered.meter_count, 0) as meter_count,
        metered.tariff_per_kwh,
        case when metered.first_currency = metered.last_currency then metered.first_currency end as currency
    from covered
    inner join lost on covered.node_id = lost.node_id and covered.reading_date = lost.reading_date
    left join metered on covered.node_id = metered.node_id and covered.reading_date = metered.reading_date
    where covered.node_type in ('feeder', 'transformer') and covered.energy_in_kwh is not null

),

judged as (

    select
        *,
        case
            when own_share >= {{ least_share }} and customers_share >= {{ least_share }}
                then energy_in_kwh - energy_metered_kwh - technical_loss_kwh
        end as unexplained_kwh
    from compared

)

select
    node_id,
    node_type,
    parent_id,
    reading_date,
    {{ as_double('energy_in_kwh') }} as energy_in_kwh,
    {{ as_double('energy_metered_kwh') }} as energy_metered_kwh,
    {{ as_double('energy_estimated_kwh') }} as energy_estimated_kwh,
    {{ as_double('technical_loss_kwh') }} as technical_loss_kwh,
    {{ as_double('unexplained_kwh') }} as unexplained_kwh,
    {{ as_double('unexplained_kwh / nullif(energy_in_kwh, 0)') }} as unexplained_share,
    cast(meter_count as bigint) as meter_count,
    {{ as_double('own_share * customers_share') }} as completeness,
    {{ as_double('tariff_per_kwh') }} as tariff_per_kwh,
    currency
from judged
